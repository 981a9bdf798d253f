"""How every command ends: one line of JSON, or one line that says what to change.

Progress and tables go to stderr; the last line of stdout is one JSON object. Exit status 0 means
that all was done, 2 that the user has to change something, 130 Ctrl-C, 143 SIGTERM, 129 a terminal
that was closed.
"""

import errno
import json
import logging
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from fastformers.cluster.storage.options import hide_credentials
from fastformers.errors import FastformersError, how_to_install
from fastformers.inference.engines import ENGINES
from fastformers.jobs.console.interrupts import interruptible
from fastformers.jobs.console.plain_text import plain

EXTRA_OF = {
    "torch": "compress",
    "transformers": "compress",
    "onnx": "compress",
    "jinja2": "report",
    "matplotlib": "report",
    "boto3": "aws",
    "botocore": "aws",
    "google": "gcp",
    "nncf": "bench",
    "huggingface_hub": "hub",
    **{entry.package: entry.extra for entry in ENGINES.values() if entry.extra is not None},
}


class PlainConsole(Console):
    """A console in which every text only shows; whatever a command prints goes through here."""

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as it is shown; rich itself would drop some characters in silence."""
        return super().render_str(plain(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Pieces of text with their styles, and what moves the cursor of a progress bar."""
        for segment in super().render(renderable, options):
            is_text = segment.control is None
            yield Segment(plain(segment.text), segment.style) if is_text else segment


class ConsoleHandler(logging.Handler):
    """Shows warnings of the libraries on the console."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one."""
        try:
            console.print(self.format(record))
        except Exception:
            self.handleError(record)


console = PlainConsole(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def run(job: Callable[[], Mapping[str, Any]], *, resume: str = "") -> int:
    """Run a job: print its result as the last line of stdout, or its error as one line.

    Args:
        job: Does the work and returns what the last line shows.
        resume: What to do after Ctrl-C or SIGTERM.

    Returns:
        The exit status.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[ConsoleHandler()])
    with interruptible() as interrupts:
        try:
            result = job()
        except FastformersError as error:
            return _refuse(str(error))
        except ModuleNotFoundError as error:
            extra = EXTRA_OF.get((error.name or "").split(".")[0])
            if extra is None:
                raise
            return _refuse(f"{error.name} is not installed: {how_to_install(extra)}")
        except OSError as error:
            return _refuse(_describe(error))
        except KeyboardInterrupt:
            return _say_interrupted(interrupts.number or signal.SIGINT, resume)
        except SystemExit as error:
            if error.code != signal.SIGTERM:  # Ray's own handler, while Ray starts
                raise
            return _say_interrupted(signal.SIGTERM, resume)
        print(hide_credentials(json.dumps(result)), flush=True)
        return 0


def _say_interrupted(number: int, resume: str) -> int:
    with suppress(OSError):  # the terminal may be closed
        console.print(f"interrupted. {resume}".rstrip())
    return 128 + number


def _refuse(message: str) -> int:
    console.print("error: " + " ".join(plain(message).split()))
    return 2


def _describe(error: OSError) -> str:
    """What a disk or a service refused, and where."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
        return f"{error.filename or 'output'}: {reason}; free space or change it"
    return reason if error.filename is None else f"{error.filename}: {reason}"
