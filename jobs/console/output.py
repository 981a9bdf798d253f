"""How every command ends: one line of JSON, or one line that says what to change.

Progress and tables go to stderr; the last line of stdout is one JSON object, where stdout is no
terminal or `--json` asks for it. Exit status 0 means that all was done, 2 that the user has to
change something, 130 Ctrl-C, 143 SIGTERM, 129 a terminal that was closed.
"""

import argparse
import errno
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from fastformers.cluster.storage.options import hide_credentials
from fastformers.errors import AuditError, FastformersError
from fastformers.inference.engines import ENGINES
from fastformers.installation import how_to_install
from fastformers.jobs.console.command_line.output_settings import OutputSettings
from fastformers.jobs.console.flags import read_config
from fastformers.jobs.console.terminal.interrupts import interruptible
from fastformers.jobs.console.terminal.plain_text import plain

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
            speak(self.format(record))
        except Exception:
            self.handleError(record)


def _make_console() -> PlainConsole:
    return PlainConsole(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


console = _make_console()
_never_quiet = _make_console()


def speak(line: str) -> None:
    """Show a line that `--quiet` does not hide; where nothing is hidden, above the live line."""
    (_never_quiet if console.quiet else console).print(line)


def run(
    job: Callable[[], Mapping[str, Any]],
    options: argparse.Namespace | None = None,
    *,
    resume: str = "",
    measures: bool = False,
) -> int:
    """Run a job: print its result as the last line of stdout, or its error as one line.

    Args:
        job: Does the work and returns what the last line shows.
        options: Options of the command, which say how much is shown; None for the defaults.
        resume: What to do after Ctrl-C or SIGTERM.
        measures: Whether the last line says how it was measured (`measured`), so that it can be
            filed; the options are then those of a command line.

    Returns:
        The exit status.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[ConsoleHandler()])
    with interruptible() as interrupts:
        try:
            settings = read_config(OutputSettings, options or argparse.Namespace())
            with _speaking(settings):
                result = job()
                if measures and options is not None:
                    from fastformers.jobs.console.command_line.conditions import describe_conditions

                    result = {**result, "measured": describe_conditions(options.words)}
        except AuditError as error:
            return _refuse(str(error), status=1)
        except FastformersError as error:
            return _refuse(str(error))
        except ModuleNotFoundError as error:
            text = explain_missing(error)
            if text is None:
                raise
            return _refuse(text)
        except OSError as error:
            return _refuse(_describe(error))
        except KeyboardInterrupt:
            return _say_interrupted(interrupts.number or signal.SIGINT, resume)
        except SystemExit as error:
            if error.code != signal.SIGTERM:  # Ray's own handler, while Ray starts
                raise
            return _say_interrupted(signal.SIGTERM, resume)
        if settings.json or not sys.stdout.isatty():
            print(hide_credentials(json.dumps(result)), flush=True)
        return 0


def explain_missing(error: ModuleNotFoundError) -> str | None:
    """How to install a package that is missing, if an extra of fastformers brings it; else None."""
    extra = EXTRA_OF.get((error.name or "").split(".")[0])
    return None if extra is None else f"{error.name} is not installed: {how_to_install(extra)}"


@contextmanager
def _speaking(settings: OutputSettings) -> Iterator[None]:
    """Show as much as the user wants; other libraries' lines begin at warnings."""
    loggers = {
        logging.getLogger("fastformers"): settings.level,
        logging.getLogger(): max(settings.level, logging.WARNING),
    }
    before = {logger: logger.level for logger in loggers}
    was_quiet, console.quiet = console.quiet, settings.quiet
    for logger, level in loggers.items():
        logger.setLevel(level)
    try:
        yield
    finally:
        console.quiet = was_quiet
        for logger, level in before.items():
            logger.setLevel(level)


def _say_interrupted(number: int, resume: str) -> int:
    with suppress(OSError):  # the terminal may be closed
        console.print(f"interrupted. {resume}".rstrip())
    return 128 + number


def _refuse(message: str, *, status: int = 2) -> int:
    console.print("error: " + " ".join(plain(message).split()))
    return status


def _describe(error: OSError) -> str:
    """What a disk or a service refused, and where."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
        return f"{error.filename or 'output'}: {reason}; free space or change it"
    return reason if error.filename is None else f"{error.filename}: {reason}"
