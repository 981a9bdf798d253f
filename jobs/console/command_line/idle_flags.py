"""Refuse flags that do nothing beside the others that were given.

    options, rules of a command, formats of files -> [idle_flags] -> one line with flag and reason

A flag that is passed over in silence is one that a user thinks was heeded. Each command has its
rules as a table beside its parser; those of flags that several commands share are here. This module
opens no file.
"""

import argparse
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow.fs

from fastformers.cluster.settings import CorpusSettings
from fastformers.errors import InputError
from fastformers.formats.csv_files import CsvReader
from fastformers.formats.file_set import formats_at
from fastformers.formats.parquet import ParquetReader
from fastformers.formats.readers import FileReader
from fastformers.formats.text_file_config import TextFileConfig
from fastformers.options import option_of

TEXT_FILES = tuple(field.name for field in fields(TextFileConfig))
_CSV = ("csv_delimiter", "csv_quote", "csv_escape")
# Flags that say how a corpus is read and cut, which was done where its shards are prepared.
_READING = (
    *("text_column", "text_pair_column", "shard_seconds", "skip_unreadable_files", "binary_text"),
    *TEXT_FILES,
)
# Flags of `CorpusSettings`, and of the text files in it.
CORPUS = (
    *(field.name for field in fields(CorpusSettings) if option_of(field.metadata) is not None),
    *TEXT_FILES,
)


@dataclass(frozen=True)
class IdleRule:
    """Flags, and when they do nothing.

    Attributes:
        flags: Names of the options.
        is_idle: Whether they do nothing beside the other options.
        reason: Why, and what would give them something to do.
    """

    flags: Sequence[str]
    is_idle: Callable[[argparse.Namespace], object]
    reason: str


def refuse_idle(options: argparse.Namespace, rules: Iterable[IdleRule]) -> None:
    """Refuse the first flag that was given and does nothing.

    Raises:
        InputError: There is one; names it and says why.
    """
    for rule in rules:
        found = [name for name in rule.flags if name in options.given]
        if found and rule.is_idle(options):
            flag = options.given[found[0]]
            end = ", or leave it out" if ";" in rule.reason else "; leave it out"
            raise InputError(f"{flag} does nothing here: {rule.reason}{end}")


def refuse_idle_reading(options: argparse.Namespace, formats: Collection[type[FileReader]]) -> None:
    """Refuse flags about reading files that have no use for those that are there.

    Args:
        options: Options of the command.
        formats: Readers of the files' formats; none for shards that are prepared.

    Raises:
        InputError: A flag was given that does nothing.
    """
    rules = (
        IdleRule(_READING, lambda _: not formats, "the shards are prepared, so no corpus is read"),
        IdleRule(_CSV, lambda _: CsvReader not in formats, "no file is CSV"),
        IdleRule(
            ("encoding", "max_row_bytes"),
            lambda _: {*formats} == {ParquetReader},
            "all files are Parquet, which is no text",
        ),
        IdleRule(
            ("binary_text",),
            lambda _: ParquetReader not in formats,
            "only columns of Parquet hold bytes",
        ),
    )
    refuse_idle(options, rules)


def refuse_idle_labeled(
    options: argparse.Namespace,
    *paths: Path | None,
    others: Collection[type[FileReader]] = (),
) -> None:
    """The same for labeled files on this machine.

    Args:
        options: Options of the command.
        paths: The files.
        others: Readers of files that are read beside them.

    Raises:
        InputError: A flag was given that does nothing, or nothing is at a path.
    """
    disk = pyarrow.fs.LocalFileSystem()
    found = (formats_at(disk, str(path), str(path)) for path in paths if path is not None)
    refuse_idle_reading(options, set(others).union(*found))


def _names_a_bucket(options: argparse.Namespace) -> bool:
    values = [
        one
        for value in options.settings.values()
        for one in (value if isinstance(value, list) else [value])
    ]
    others = ("file://", "hf://")
    return any("://" in str(value) and not str(value).startswith(others) for value in values)


def has_actors_to_spare(options: argparse.Namespace) -> bool:
    """Whether no more actors can be asked for than there are cores."""
    return options.num_actors is None and options.cores_per_actor in (None, 1)


STORAGE = IdleRule(
    ("storage_options",),
    lambda options: not _names_a_bucket(options),
    "no path is in a bucket, such as s3://bucket/corpus",
)
ACTORS = IdleRule(
    ("oversubscribe",),
    has_actors_to_spare,
    "there are as many actors as cores; add --num-actors or --cores-per-actor",
)
OWN_MACHINE = IdleRule(
    ("num_nodes",),
    lambda options: options.address == "local",
    "--address local is one machine",
)
AUDIT = (
    IdleRule(
        ("audit",),
        lambda options: options.audit_bundle is None,
        "there is no bundle to audit with; add --audit-bundle",
    ),
    IdleRule(
        ("audit_bundle",),
        lambda options: options.audit is None,
        "no row is audited; add --audit",
    ),
)
SELECT = IdleRule(
    ("select_share",),
    lambda options: options.select is not None,
    "the rows of --select choose, and all of --train train",
)
SUPERGLUE = IdleRule(
    ("text_column", "text_pair_column", "choice_columns", "label_column", *_CSV),
    lambda options: options.superglue is not None,
    "the columns of --superglue's official files are known",
)
