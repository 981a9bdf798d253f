"""Call a command from Python: its flags are keywords, and a wrong one is refused as there.

    keywords -> [python_call] -> options, as the parser makes them of words -> command -> report

A value is of the type that its flag's text becomes; a text is read as the flag's would be, so that
`deadline="6h"` is six hours. This module knows nothing of any command.
"""

import argparse
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from fastformers.errors import InputError
from fastformers.jobs.console.command_line.config_file import nearest
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.flags import name_or_number
from fastformers.jobs.console.output import console, explain_missing

F = TypeVar("F", bound=Callable[..., Any])

# Flags of the command line that say nothing to a function: what it shows last, and where settings
# and log lines come from and go.
NO_KEYWORDS = {"help", "config", "json", "verbose", "log_level", "dry_run", "top"}


def fit_value(action: argparse.Action, value: Any) -> Any:
    """A value as the parser would have it.

    Raises:
        InputError: It is none of the flag's; names the flag.
    """
    flag = action.option_strings[-1] if action.option_strings else action.dest
    if value is None and action.default is None:
        return None
    if isinstance(action, argparse._AppendAction):
        values = value if isinstance(value, (list, tuple)) else [value]
        if action.type is name_or_number:
            values = [str(one) if _is_number(one) else one for one in values]
        if not all(_is_path(one) for one in values):
            raise InputError(f"{flag} {value!r}: give a list of names")
        return tuple(os.fspath(one) for one in values)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, (str, Mapping)) and action.type not in (None, str, int, float):
        read: Any = action.type
        try:
            value = read(value)
        except argparse.ArgumentTypeError as error:
            raise InputError(f"{flag}: {error}") from None
    expected = bool if action.nargs == 0 else _type_of(action)
    value = _plain_number(value)
    if not _is_of(value, expected):
        raise InputError(f"{flag} {value!r}: give {_name_of(expected)}")
    if action.choices is not None and value not in action.choices:
        raise InputError(f"{flag} {value!r}: give one of {', '.join(map(str, action.choices))}")
    return value


def refuse_unknown(values: Mapping[str, object], known: Mapping[str, argparse.Action]) -> None:
    """Refuse keywords that are none of a command's.

    Raises:
        TypeError: There is one; names what may have been meant.
    """
    names = [name for name in known if name not in NO_KEYWORDS]
    for name in values:
        if name not in names:
            closest = nearest(name.replace("_", "-"), [one.replace("_", "-") for one in names])
            raise TypeError(f"unexpected keyword argument {name!r}{closest.replace('-', '_')}")


def describes(make_parser: Callable[[], CommandParser], keywords: type) -> Callable[[F], F]:
    """Decorate a function with the keywords of its parser, for `help()` and notebooks.

    Args:
        make_parser: Makes the parser of the command that the function is.
        keywords: The types of the keywords, a `TypedDict`.
    """
    hints = get_type_hints(keywords)

    def decorate(function: F) -> F:
        actions = make_parser().arguments()
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        keyword = inspect.Parameter.KEYWORD_ONLY
        further = [action for name, action in actions.items() if name in hints]
        parameters = [
            inspect.Parameter(one.dest, keyword, default=one.default, annotation=hints[one.dest])
            for one in further
        ]
        lines = [
            f"    {one.dest}: {(one.help or '') % {**vars(one), 'prog': ''}}" for one in further
        ]
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *parameters]
        )
        meanings = "\n".join(["Keywords, with their defaults in parentheses:", *lines])
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{meanings}\n"
        return function

    return decorate


@contextmanager
def called(options: argparse.Namespace) -> Iterator[None]:
    """Show as much as the caller wants, and say what to install where a package is missing.

    Raises:
        InputError: A package is missing that an extra of fastformers brings.
    """
    was_quiet, console.quiet = console.quiet, options.quiet
    try:
        yield
    except ModuleNotFoundError as error:
        text = explain_missing(error)
        if text is None:
            raise
        raise InputError(text) from error
    finally:
        console.quiet = was_quiet


def _type_of(action: argparse.Action) -> Any:
    """Type of the values of an argument that takes one."""
    kind = action.type or str
    return kind if isinstance(kind, type) else get_type_hints(kind).get("return", str)


def _is_path(value: object) -> bool:
    return isinstance(value, (str, os.PathLike))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _plain_number(value: Any) -> Any:
    """A number of NumPy as one of Python."""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _is_of(value: object, expected: Any) -> bool:
    if get_origin(expected) in (Union, UnionType):
        return any(_is_of(value, one) for one in get_args(expected))
    if isinstance(value, bool):
        return expected is bool
    return isinstance(value, (int, float) if expected is float else expected)


def _name_of(expected: Any) -> str:
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
    if get_origin(expected) in (Union, UnionType):
        return " or ".join(_name_of(one) for one in get_args(expected))
    if expected is type(None):
        return "None"
    return "a path" if expected is Path else names.get(expected, expected.__name__)
