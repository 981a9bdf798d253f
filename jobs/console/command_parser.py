"""The parser of every command: what it refuses, it refuses in plain text.

    command line -> [command_parser] -> arguments, or one line that says what is wrong with them

An argument may be a URI with a secret in it, or a name that commands the terminal. This module
knows nothing of any argument.
"""

import argparse
from typing import NoReturn


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors only show."""

    def error(self, message: str) -> NoReturn:
        """End with how the command is used, and why the arguments cannot be."""
        from fastformers.jobs.console.plain_text import (
            plain,  # `fastformers --help` loads no more than this
        )

        super().error(" ".join(plain(message).split()))
