"""Find the outputs of many runs, and read the report of each; one that is broken stops no other.

    paths, URIs, globs -> [find_runs] -> RunReport of each, or why there is none

This module knows nothing of what a report says.
"""

import fnmatch
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from fastformers.cluster.report.run_report import REPORT_FILE, RunReport
from fastformers.cluster.shards.identity import find_home
from fastformers.cluster.storage.ahead import map_ahead
from fastformers.cluster.storage.directory import Directory, open_directory
from fastformers.cluster.storage.options import StorageOptions
from fastformers.errors import FastformersError, InputError

_GLOB = re.compile(r"[*?\[]")
_NUM_THREADS = 16


def is_glob(place: str) -> bool:
    """Whether a path or URI has wildcards; a directory that is there is meant by its name."""
    return _GLOB.search(place) is not None and not Path(place).is_dir()


def find_outputs(places: Sequence[str], storage: StorageOptions) -> list[Directory]:
    """The directories that are named, each once and in this order; those of a glob by name.

    Raises:
        InputError: A glob finds no directory, or a URI cannot be used.
    """
    found: dict[str, Directory] = {}
    for place in places:
        own = _expand(place, storage) if is_glob(place) else [open_directory(place, storage)]
        if not own:
            raise InputError(f"{place}: no directory has such a name; name outputs of runs")
        found.update({str(directory): directory for directory in own})
    return list(found.values())


def read_reports(outputs: Sequence[Directory]) -> Iterator[RunReport | FastformersError | OSError]:
    """The report of each output, or what was wrong with it, in their order."""
    return map_ahead(_try_to_read, outputs, num_threads=_NUM_THREADS)


def _try_to_read(output: Directory) -> RunReport | FastformersError | OSError:
    try:
        home = find_home(output, named=str(output))
        content = None if home is None else home.read_json(REPORT_FILE)
        if home is None or content is None:
            return InputError(f"{output}: holds no finished run")
        return RunReport.from_json(content, path=f"{home}/{REPORT_FILE}", remedy="it is left out")
    except (FastformersError, OSError) as error:
        return error


def _expand(place: str, storage: StorageOptions) -> list[Directory]:
    """Directories that a glob names, part by part from the first wildcard on."""
    parts = place.rstrip("/").split("/")
    first = next(number for number, part in enumerate(parts) if _GLOB.search(part))
    base = "/".join(parts[:first]) or ("/" if place.startswith("/") else ".")
    found = [open_directory(base, storage)]
    for part in parts[first:]:
        matches = partial(fnmatch.fnmatchcase, pat=part)
        found = [
            directory.child(name)
            for directory in found
            for name in directory.list_directories()
            if matches(name)
        ]
    return found
