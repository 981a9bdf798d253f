"""The record of the work in a directory, which a later run checks before it continues there.

    job -> [identity] -> run.json of a scored output, prepared.json of prepared shards -> rerun

A record has a format version, so that a directory whose files have another format is refused and
never read in part. Beside `predictions/`, a scored output holds one directory, `__run__`, with all
that is no prediction: Arrow, pandas, Spark and Hugging Face pass over a name that begins so, and
take the whole output for one dataset. This module knows nothing of corpora or bundles: an identity
is any mapping.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fastformers.cluster.shards.claim_file import CLAIM_FILE
from fastformers.cluster.storage.ahead import side_by_side
from fastformers.cluster.storage.directory import Directory, open_directory
from fastformers.cluster.storage.options import StorageOptions
from fastformers.errors import ChangedWorkError, InputError
from fastformers.files.hub import parse_hub_uri

RUN_DIRECTORY = "__run__"
RUN_FILE = "run.json"
PREPARED_FILE = "prepared.json"
STATUS_FILE = "status.json"  # where the run stands; no part of the work
# Version of the record and of all files beside it: predictions, shards, receipts of slices.
FORMAT_VERSION = 4


def find_home(output: Directory, *, named: str) -> Directory | None:
    """Directory of the records of a run into `output`; None if no run was ever there.

    Args:
        output: What the user gave a run as its output.
        named: Name of the directory in errors.

    Raises:
        InputError, ChangedWorkError: As for `read_record`.
    """
    home = output.child(RUN_DIRECTORY)
    if read_record(home, RUN_FILE, named=named) is not None:
        return home
    return None if read_record(output, PREPARED_FILE, named=named) is None else output


def write_record(
    directory: Directory,
    file: str,
    identity: Mapping[str, Any],
    *,
    complete: bool | None = None,
    asked: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write down what the directory holds.

    Args:
        directory: Directory of the work.
        file: Name of the record.
        identity: Values that are equal when the same work is run again.
        complete: Whether a preparation is finished; None for a record that does not say so.
        asked: Settings of the command that worked there last, by name of the flag.
    """
    state = {} if complete is None else {"complete": complete}
    settings = {"settings": dict(asked)} if asked else {}
    directory.write_json(
        file, {"format_version": FORMAT_VERSION, **state, "identity": dict(identity), **settings}
    )


def check_free(output: Directory, file: str, *, named: str) -> dict[str, Any] | None:
    """The record of an output; None where it is free for other work.

    Args:
        output: Directory that the user named.
        file: Name of the record.
        named: Name of the directory in errors, such as "--output out".

    Raises:
        InputError: Something else is there.
        ChangedWorkError: Another version of fastformers wrote the record.
    """
    is_scored = file == RUN_FILE
    home = output.child(RUN_DIRECTORY) if is_scored else output
    own = (RUN_DIRECTORY,) if is_scored else (CLAIM_FILE, STATUS_FILE)
    record, is_free = side_by_side(
        lambda: read_record(home, file, named=named), lambda: output.is_empty(but=own)
    )
    if record is None and not is_free:
        raise InputError(
            f"{named}: is not empty and holds no run of ours; choose another directory"
        )
    known: dict[str, Any] | None = record
    return known


def open_output(
    uri: str, corpus_uri: str, bundle_source: object, storage: StorageOptions
) -> Directory:
    """The output of a job; nothing is asked of its storage.

    Args:
        uri: Its path or URI.
        corpus_uri, bundle_source: What is read, and must lie apart from it.
        storage: How to reach buckets.

    Raises:
        InputError: It is the corpus, or lies in the bundle.
    """
    output = open_directory(uri, storage)
    if output == open_directory(corpus_uri, storage):
        raise InputError(f"--output {output}: is the corpus itself; choose another directory")
    if _is_in_bundle(output, str(bundle_source), storage):
        raise InputError(f"--output {output}: lies in the bundle; choose another directory")
    return output


def check_output(output: Directory, file: str) -> dict[str, Any] | None:
    """The record of an output that can be written to; None where it is free for other work.

    Args:
        output: Directory that the user named.
        file: Name of the record.

    Raises:
        InputError: Something else is there.
        ChangedWorkError: Another version of fastformers wrote the record.
        StorageError: It cannot be written to.
    """
    record = check_free(output, file, named=f"--output {output}")
    output.check_writable()
    return record


def _is_in_bundle(output: Directory, source: str, storage: StorageOptions) -> bool:
    if parse_hub_uri(source) is not None:  # where no output can be
        return False
    bundle = open_directory(source, storage)
    return output.store == bundle.store and f"{output.path}/".startswith(f"{bundle.path}/")


def read_record(directory: Directory, file: str, *, named: str) -> dict[str, Any] | None:
    """Read what `write_record` wrote; None where there is no such file.

    Args:
        directory: Directory of the work.
        file: Name of the record.
        named: Name of the directory in errors, such as "--output out".

    Raises:
        InputError: The file is not ours.
        ChangedWorkError: Another version of fastformers wrote it.
    """
    record = directory.read_json(file)
    if record is None:
        return None
    if not (isinstance(record, dict) and isinstance(record.get("identity"), dict)):
        raise InputError(f"{named}: {file} is not ours; choose another directory")
    version = record.get("format_version", 0)
    if version != FORMAT_VERSION:
        age = "an older" if isinstance(version, int) and version < FORMAT_VERSION else "a newer"
        raise ChangedWorkError(
            f"{named}: {file} was written by {age} version of fastformers (format {version}, this "
            f"one reads {FORMAT_VERSION}); choose another directory, or delete this one and make "
            "it again"
        )
    return record
