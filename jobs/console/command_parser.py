"""The parser of every command: what it takes from where, and what it refuses in plain text.

    command line, --config FILE, or Python values -> [command_parser] -> options, or one line that
    says what is wrong

An argument may be a URI with a secret in it, or a name that commands the terminal. No flag is
abbreviated: a script goes on to mean the same when another flag is added. This module knows nothing
of any argument but those that all commands have, and `fastformers --help` loads no more than this.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NoReturn

from fastformers.errors import InputError

# Flags that say how a command speaks, not what it does: no part of the settings of a run.
_UNRECORDED = {"help", "config", "json", "quiet", "verbose", "log_level", "dry_run"}
# May hold secrets, and travels to the actors only.
_SECRET = {"storage_options"}


class PlainParser(argparse.ArgumentParser):
    """A parser whose errors only show, and that takes flags by their whole name."""

    def __init__(self, **settings: Any) -> None:
        """Make one; settings are those of `argparse.ArgumentParser`."""
        as_written = {"formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(**{"allow_abbrev": False, **as_written, **settings})
        self._positionals.title, self._optionals.title = "arguments", "flags"

    def error(self, message: str) -> NoReturn:
        """End with how the command is used, and why the arguments cannot be."""
        from fastformers.jobs.console.terminal.plain_text import plain

        super().error(" ".join(plain(message).split()))


class CommandParser(PlainParser):
    """A parser of a command; its options say which flags were given, by `given`."""

    def __init__(self, **settings: Any) -> None:
        """Make one; settings are those of `argparse.ArgumentParser`."""
        super().__init__(epilog="In parentheses: what holds without the flag.", **settings)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Options from the command line and from the file that `--config` names.

        Beside the arguments by name they have `given`, the flags that the user gave, there or in
        the file, by name; `settings`, what all flags are set to, as run.json has it; and `words`,
        the command line.
        """
        self._add_shared_arguments()
        self.usage = self._short_usage()
        if "_ARGCOMPLETE" in os.environ:
            import argcomplete

            argcomplete.autocomplete(self)
        words = list(sys.argv[1:] if args is None else args)
        given = self._given_in(words)
        try:
            configured = self._configured(words, given)
        except InputError as error:
            self.error(str(error))
        options, unknown = self.parse_known_args([*configured, *words], namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._nearest(unknown[0])}")
        with_given = _with_given(options, given | self._given_in(configured))
        with_given.words = [*self.prog.split(), *words]
        return with_given

    def take(self, values: Mapping[str, object]) -> argparse.Namespace:
        """Options of Python values, by the names of the arguments, as `parse_args` makes of words.

        Raises:
            TypeError: There is no argument of a name.
            InputError: A value is none of its argument's; names the flag.
        """
        from fastformers.jobs.console.command_line.python_call import fit_value, refuse_unknown

        known = self.arguments()
        refuse_unknown(values, known)
        options = argparse.Namespace(**{name: action.default for name, action in known.items()})
        given = set()
        for name, value in values.items():
            fitted = fit_value(known[name], value)
            if known[name].option_strings and fitted is not known[name].default:
                given.add(known[name])
            setattr(options, name, fitted)
        for group in self._mutually_exclusive_groups:
            flags = [one.option_strings[-1] for one in group._group_actions if one in given]
            if len(flags) > 1:
                raise InputError(f"{' and '.join(flags)}: give one of them")
        return _with_given(options, given)

    def arguments(self) -> dict[str, argparse.Action]:
        """All arguments by name, with those that every command has; for a parser of no words."""
        self._add_shared_arguments()
        return {action.dest: action for action in self._actions if action.dest != "help"}

    def _add_shared_arguments(self) -> None:
        from fastformers.jobs.console.command_line.output_settings import OutputSettings
        from fastformers.jobs.console.flags import METAVARS, add_config_arguments

        shared = self.add_argument_group("settings and output of this command")
        shared.add_argument(
            "--config",
            type=Path,
            metavar="FILE.yaml",
            help="take flags from a file, by their names without dashes in front, as in limit: 100;"
            " those of the command line come first (none)",
        )
        add_config_arguments(shared, OutputSettings)
        # A value is named by its type, or as the argument; argparse would write NUM_ACTORS.
        for action in self._actions:
            if action.nargs != 0 and action.metavar is None and action.choices is None:
                own = [*action.option_strings, action.dest][0].lstrip("-").upper()
                action.metavar = METAVARS.get(action.type, own)

    def _given_in(self, words: Sequence[str]) -> set[argparse.Action]:
        """The flags among the words of a command line."""
        ended = words.index("--") if "--" in words else len(words)
        flags = (word.partition("=")[0] for word in words[:ended])
        return {
            self._option_string_actions[flag]
            for flag in flags
            if flag in self._option_string_actions
        }

    def _configured(self, words: Sequence[str], given: Set[argparse.Action]) -> list[str]:
        """Words for the settings of the file that the words name; none without a file.

        A positional argument that the file sets is no longer required of the command line.

        Raises:
            InputError: The file cannot be used.
        """
        finder = PlainParser(prog=self.prog, add_help=False)
        finder.add_argument("--config", type=Path)
        path = finder.parse_known_args(words)[0].config
        if path is None:
            return []
        from fastformers.jobs.console.command_line.config_file import load_settings, words_of

        settings = load_settings(path)
        for action in self._actions:
            if not action.option_strings and isinstance(settings.get(action.dest), str):
                action.nargs, action.required = "?", False
                action.default = settings.pop(action.dest)
        excluded = {
            action
            for group in self._mutually_exclusive_groups
            if not given.isdisjoint(group._group_actions)
            for action in group._group_actions
        }
        settable = [action for action in self._actions if action.dest not in ("help", "config")]
        return words_of(settings, settable, {*given, *excluded}, path=path)

    def _nearest(self, word: str) -> str:
        from fastformers.jobs.console.command_line.config_file import nearest

        flag = word.partition("=")[0]
        return nearest(flag, self._option_string_actions) if flag.startswith("--") else ""

    def _short_usage(self) -> str:
        """What must be given; the flags follow in the help, and are too many for a line."""
        parts = ["%(prog)s"]
        for action in self._actions:
            name = str(action.metavar or action.dest).upper()
            if not action.option_strings:
                parts.append(name if action.required else f"[{name}]")
            elif action.required:
                parts.append(f"{action.option_strings[0]} {name}")
        return " ".join([*parts, "[FLAG ...]"])


def _with_given(
    options: argparse.Namespace, given: Iterable[argparse.Action]
) -> argparse.Namespace:
    """The options with which flags were given, and what all are set to; see `parse_args`."""
    options.given = {action.dest: action.option_strings[-1] for action in given}
    options.settings = {
        name: _plain(value)
        for name, value in vars(options).items()
        if name not in {*_UNRECORDED, *_SECRET, "given"}
    }
    return options


def _plain(value: Any) -> Any:
    """A value as JSON has it, without credentials."""
    from fastformers.jobs.console.terminal.plain_text import plain

    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return plain(str(value))
