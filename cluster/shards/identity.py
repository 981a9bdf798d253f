"""What work a directory holds: the record that a later run checks before it goes on there.

    job -> [identity] -> run.json of a scored output, prepared.json of prepared shards -> rerun

A record has a format version: directories of versions that wrote other files are refused, not half
understood.
"""

from collections.abc import Mapping
from typing import Any

from cluster.storage import Directory
from fastformers.errors import ChangedWorkError, InputError

RUN_FILE = "run.json"
PREPARED_FILE = "prepared.json"
# Of the record and of all files beside it: predictions, shards, receipts of slices.
FORMAT_VERSION = 1


def write_record(
    directory: Directory, file: str, identity: Mapping[str, Any], *, complete: bool | None = None
) -> None:
    """Write down what the directory holds.

    Args:
        directory: Where the work is.
        file: Name of the record.
        identity: What makes it the same work when it is run again.
        complete: Whether a preparation is finished; None for what does not need to say so.
    """
    state = {} if complete is None else {"complete": complete}
    directory.write_json(
        file, {"format_version": FORMAT_VERSION, **state, "identity": dict(identity)}
    )


def read_record(directory: Directory, file: str, *, named: str) -> dict[str, Any] | None:
    """What `write_record` wrote, or None where there is no such file.

    Args:
        directory: Where the work is.
        file: Name of the record.
        named: What errors call the directory, such as "--output out".

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
