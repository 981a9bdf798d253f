"""Tables of Delta Lake, Iceberg and Hudi, whose directories also hold files that are not current.

    directory -> [table_formats] -> which tables are there -> listing
    table of Delta Lake -> [table_formats] -> its current files, by its own log -> listing

Which files of a table are current is in its log alone: whoever reads them all reads deleted and
replaced rows. The log of Delta Lake is read by `deltalake`. This module opens no data file.
"""

import re
from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow.fs

from fastformers.errors import InputError
from fastformers.files.places import Place
from fastformers.installation import how_to_install

if TYPE_CHECKING:
    from deltalake import DeltaTable

DELTA, ICEBERG, HUDI = "Delta Lake", "Iceberg", "Hudi"
# Directories that only such a table has.
_LOGS = {"_delta_log": DELTA, ".hoodie": HUDI}
_ICEBERG = re.compile(r"/metadata/[^/]*\.metadata\.json$")
# What a reader of the table's Parquet files need not know of.
_HARMLESS = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "typeWidening"}


def find_tables(
    filesystem: pyarrow.fs.FileSystem, base: str, places: Collection[Place]
) -> dict[str, str]:
    """Kinds of the tables among some files below a directory, and of that which it is a part of."""
    tables: dict[str, str] = {}
    above = base.split("/")
    for directory in {place.path.rpartition("/")[0] for place in places}:
        names = directory.split("/")
        for number in range(len(above), len(names)):
            if names[number] in _LOGS:
                tables["/".join(names[:number])] = _LOGS[names[number]]
    for place in places:
        if _ICEBERG.search(place.path):
            tables[place.path.rpartition("/metadata/")[0]] = ICEBERG
    partition = next((number for number, name in enumerate(above) if "=" in name), None)
    if partition is not None:  # `year=2023`: the directory above may be a table
        root = "/".join(above[:partition])
        for info in filesystem.get_file_info([f"{root}/{log}" for log in _LOGS]):
            if info.type == pyarrow.fs.FileType.Directory:
                tables[root] = _LOGS[info.path.rpartition("/")[2]]
    return tables


def list_current_files(
    filesystem: pyarrow.fs.FileSystem, path: str, uri: str, kind: str
) -> list[Place]:
    """The current files of a table, in name order.

    Args:
        filesystem: Where the table is.
        path: Its directory there.
        uri: The same as the user wrote it, for messages.
        kind: Its kind.

    Raises:
        InputError: Its log cannot be read here.
    """
    named = f"{uri}: is a table of {kind}, whose directory also holds files that are not current"
    if kind != DELTA:
        raise InputError(f"{named}; write its current rows as Parquet, and give those")
    if not isinstance(filesystem, pyarrow.fs.LocalFileSystem):
        raise InputError(
            f"{named}; its log is read on disks only: copy it, or write its rows as Parquet"
        )
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ModuleNotFoundError:
        raise InputError(f"{named}; to read them by its log, {how_to_install('tables')}") from None
    try:
        table = DeltaTable(path)
        _check_plain(table, named)
        names = table.get_add_actions().column("path").to_pylist()
    except (DeltaError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{uri}: the log of the table cannot be read ({reason}); repair it"
        ) from error
    if not names:
        raise InputError(f"{uri}: the corpus is empty")
    if foreign := [name for name in names if "://" in name]:
        raise InputError(f"{named}; it refers to {foreign[0]}: write its rows as Parquet")
    paths = sorted(f"{path}/{unquote(name)}" for name in names)
    return [Place.of(info) for info in filesystem.get_file_info(paths)]


def _check_plain(table: "DeltaTable", named: str) -> None:
    """Refuse a table whose files do not say by themselves what its rows are."""
    features = set(table.protocol().reader_features or ()) - _HARMLESS
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") == "none":
        features.discard("columnMapping")
    else:
        features.add("columnMapping")
    if "deletionVectors" in features and not table.deletion_vectors().read_all().num_rows:
        features.discard("deletionVectors")
    if unknown := sorted(features):
        raise InputError(
            f"{named}; it uses {', '.join(unknown)}: write its current rows as Parquet, and give "
            "those"
        )
