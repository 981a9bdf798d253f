"""Refuse flags that do nothing beside the others that were given.

    options, rules of a command -> [idle_flags] -> one line with the flag and the reason

A flag that is passed over in silence is one that a user thinks was heeded. Each command has its
rules as a table beside its parser; those of flags that several commands share are here. This module
reads no file.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import fields

from fastformers.cluster.settings import CorpusSettings
from fastformers.errors import InputError
from fastformers.formats.csv_files import CsvReader
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


class IdleRule:
    """Flags, and when they do nothing."""

    def __init__(
        self,
        flags: Iterable[str],
        is_idle: Callable[[argparse.Namespace], object],
        reason: str,
    ) -> None:
        """Make a rule.

        Args:
            flags: Names of the options.
            is_idle: Whether they do nothing beside the other options.
            reason: Why, and what would give them something to do.
        """
        self.flags, self.is_idle, self.reason = tuple(flags), is_idle, reason


def refuse_idle(options: argparse.Namespace, rules: Iterable[IdleRule]) -> None:
    """Refuse the first flag that was given and does nothing.

    Raises:
        InputError: There is one; names it and says why.
    """
    for rule in rules:
        found = [name for name in rule.flags if name in options.given]
        if found and rule.is_idle(options):
            flag = options.given[found[0]]
            raise InputError(f"{flag} does nothing here: {rule.reason}; leave it out")


def refuse_idle_reading(options: argparse.Namespace, reader: FileReader | None) -> None:
    """Refuse flags about reading a corpus that have no use for the one that was opened.

    Args:
        options: Options of the command.
        reader: Reader of its files; None for shards that are prepared.

    Raises:
        InputError: A flag was given that does nothing.
    """
    is_parquet, is_csv = isinstance(reader, ParquetReader), isinstance(reader, CsvReader)
    refuse_idle(
        options,
        [
            IdleRule(
                _READING,
                lambda _: reader is None,
                "the shards are prepared, so no corpus is read",
            ),
            IdleRule(_CSV, lambda _: not is_csv, "the corpus holds no CSV"),
            IdleRule(
                ("encoding", "max_row_bytes"),
                lambda _: is_parquet,
                "the corpus is Parquet, no text files",
            ),
            IdleRule(
                ("binary_text",), lambda _: not is_parquet, "only columns of Parquet hold bytes"
            ),
        ],
    )


def _names_a_bucket(options: argparse.Namespace) -> bool:
    values = [
        one
        for value in options.settings.values()
        for one in (value if isinstance(value, list) else [value])
    ]
    return any("://" in str(value) and not str(value).startswith("file://") for value in values)


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
SUPERGLUE = IdleRule(
    ("text_column", "text_pair_column", "choice_columns", "label_column", *_CSV),
    lambda options: options.superglue is not None,
    "the columns of --superglue's official files are known",
)
