"""Make a command's flags from the fields of a config, and the config from what they were given.

    config class -> [flags] -> argparse -> [flags] -> config

Which fields are flags, and what they mean, stands at the fields (fastformers/options.py).
"""

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fastformers.options import Option, flag_of, option_of

C = TypeVar("C")

# What stands for a value in a command's help where the field says nothing.
METAVARS: dict[object, str] = {int: "N", float: "NUMBER", str: "NAME", Path: "PATH"}


def add_config_arguments(
    parser: argparse._ActionsContainer,
    config: type | object,
    *,
    leave_out: Collection[str] = (),
    parsers: Mapping[str, Callable[[str], Any]] | None = None,
    defaults: Mapping[str, str] | None = None,
) -> None:
    """Add one flag for each field that was declared with `options.option`.

    Args:
        parser: Parser or group of arguments.
        config: Config class; or a config, whose values then are the defaults. The fields of a
            config inside it are not added: add them by a call of their own.
        leave_out: Fields that this command has no use for; they keep their defaults.
        parsers: What turns the text of a flag into the value, by field, for texts that the field's
            type does not read: 6h. They refuse with `argparse.ArgumentTypeError`.
        defaults: What a command's help says of defaults that are None, by field.
    """
    config_class = config if isinstance(config, type) else type(config)
    hints = get_type_hints(config_class)
    for field in fields(config_class):
        option = option_of(field.metadata)
        if option is not None and field.name not in leave_out:
            default = getattr(config, field.name, MISSING)
            parse = (parsers or {}).get(field.name)
            shown = (defaults or {}).get(field.name)
            if shown is not None:
                option = replace(option, meaning=f"{option.meaning} ({shown})")
            _add_flag(parser, option.name or field.name, hints[field.name], default, option, parse)


def read_config(config_class: type[C], options: argparse.Namespace, **given: object) -> C:
    """Make a config, and the configs inside it, from the flags of `add_config_arguments`.

    Args:
        config_class: The config to make.
        options: The parsed arguments.
        given: Values of fields that are no flags.

    Raises:
        InputError: A value cannot be used; names its flag.
    """
    return config_class(**{**_values_of(config_class, options), **given})


def _values_of(config: type | object, options: argparse.Namespace) -> dict[str, Any]:
    """Values of the fields that are flags and were not left out, and the configs inside."""
    values = {}
    for field in fields(config):  # type: ignore[arg-type]
        default = getattr(config, field.name, MISSING)
        if is_dataclass(default) and not isinstance(default, type):
            values[field.name] = replace(default, **_values_of(default, options))
        elif (option := option_of(field.metadata)) is not None:
            name = option.name or field.name
            if hasattr(options, name):
                values[field.name] = getattr(options, name)
    return values


def _add_flag(
    parser: argparse._ActionsContainer,
    name: str,
    hint: Any,
    default: object,
    option: Option,
    parse: Callable[[str], Any] | None,
) -> None:
    meaning = option.meaning
    if not any(default is unshown for unshown in (MISSING, None, False, ())):
        meaning += f" ({_as_typed(default)})"
    meaning = meaning.replace("%", "%%")
    if hint is bool:
        parser.add_argument(flag_of(name), action="store_true", help=meaning)
        return
    value_type = _without_none(hint)
    if get_origin(value_type) is tuple and parse is None:
        one_type, _ = get_args(value_type)
        parser.add_argument(
            flag_of(name),
            action=_AddName,
            type=name_or_number if float in get_args(one_type) else str,
            default=(),
            metavar=option.metavar,
            help=meaning,
        )
        return
    is_choice = get_origin(value_type) is Literal
    parser.add_argument(
        flag_of(name),
        type=parse or _parser_of(value_type),
        choices=get_args(value_type) if is_choice else None,
        required=default is MISSING,
        default=None if default is MISSING else default,
        metavar=option.metavar or (None if is_choice else METAVARS.get(value_type)),
        help=meaning,
    )


def _as_typed(default: object) -> str:
    """A default as a user would type it: 5e-5 and 10,100, as Python writes neither."""
    if isinstance(default, tuple):
        return ",".join(map(_as_typed, default))
    return f"{default:g}".replace("e-0", "e-") if isinstance(default, float) else str(default)


def name_or_number(text: str) -> str:
    """A name that may be a number: its config reads it, and Python's callers may give numbers."""
    return text


class _AddName(argparse._AppendAction):
    """Adds what a flag is given to what it was given before; its config splits lists."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), values))


def _without_none(hint: Any) -> Any:
    """The type of a value that may be None otherwise."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    return hint


def _parser_of(value_type: Any) -> Callable[[str], Any]:
    """What turns the text of a flag into a value."""
    parse: Callable[[str], Any] = str if get_origin(value_type) is Literal else value_type
    return parse
