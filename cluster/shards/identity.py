"""The record of the work in a directory, which a later run checks before it continues there.

    job -> [identity] -> run.json of a scored output, prepared.json of prepared shards -> rerun

A record has a format version, so that a directory whose files have another format is refused and
never read in part. This module knows nothing of corpora or bundles: an identity is any mapping.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fastformers.cluster.shards.claim_file import CLAIM_FILE
from fastformers.cluster.storage.directory import Directory
from fastformers.errors import ChangedWorkError, InputError

RUN_FILE = "run.json"
PREPARED_FILE = "prepared.json"
STATUS_FILE = "status.json"  # where the run stands; no part of the work
# Version of the record and of all files beside it: predictions, shards, receipts of slices.
FORMAT_VERSION = 3


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


def check_free(directory: Directory, file: str, *, named: str) -> dict[str, Any] | None:
    """The record in a directory; None where it is free for other work.

    Args:
        directory: Directory of the work.
        file: Name of the record.
        named: Name of the directory in errors, such as "--output out".

    Raises:
        InputError: Something else is there.
        ChangedWorkError: Another version of fastformers wrote the record.
    """
    record = read_record(directory, file, named=named)
    if record is None and not directory.is_empty(but=(CLAIM_FILE, STATUS_FILE)):
        raise InputError(
            f"{named}: is not empty and holds no run of ours; choose another directory"
        )
    return record


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
