"""What a command shows beside its work: flags that every command has.

    command line -> [output_settings] -> output

This module knows nothing of terminals, and loads nothing: every parser adds these flags.
"""

import logging
from dataclasses import dataclass, field
from typing import Literal

from fastformers.errors import InputError
from fastformers.options import option

LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """How much a command says, and where its result goes; the meaning stands beside each field."""

    json: bool = field(
        default=False,
        metadata=option(
            "print the result as a line of JSON on standard output, which happens by itself where "
            "that is no terminal"
        ),
    )
    quiet: bool = field(
        default=False, metadata=option("show warnings and errors alone: no progress and no tables")
    )
    verbose: bool = field(
        default=False, metadata=option("show what is done in detail, as --log-level info does")
    )
    log_level: LogLevel | None = field(
        default=None, metadata=option("least level of the log lines that are shown (warning)")
    )

    def __post_init__(self) -> None:
        if self.verbose and self.log_level is not None:
            raise InputError("--verbose is --log-level info; leave one of the two out")
        if self.verbose and self.quiet:
            raise InputError("--quiet and --verbose contradict each other; leave one of them out")

    @property
    def level(self) -> int:
        """The least level of Python's logging that is shown."""
        name = self.log_level or ("info" if self.verbose else "warning")
        return logging.getLevelNamesMapping()[name.upper()]
