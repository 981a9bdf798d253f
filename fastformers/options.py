"""Declare a setting once: the field of a config is also the flag of a command.

    field of a frozen config -> [options] -> flag, type, default and help of a command

A field's name is its flag's (`prune_rounds` is `--prune-rounds`), unless the field says another;
its type and default are the flag's too, and its meaning is the flag's help. The error of a config
names the flag, whoever made the config. This module knows nothing of argparse or of any command.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fastformers.errors import InputError

_KEY = "option"


@dataclass(frozen=True, kw_only=True)
class Option:
    """What a flag needs beside its field's name, type and default.

    Attributes:
        meaning: One phrase with the unit, without the default.
        metavar: Name of the value in a command's help; None for the flag's name.
        name: Name of the flag, with underscores, where it is not the field's: a user needs no unit
            in it, or more than a class does that says the rest itself.
    """

    meaning: str
    metavar: str | None = None
    name: str | None = None


def option(
    meaning: str, *, metavar: str | None = None, name: str | None = None
) -> dict[str, Option]:
    """Metadata of a dataclass field that is a flag too; arguments as for `Option`."""
    return {_KEY: Option(meaning=meaning, metavar=metavar, name=name)}


def option_of(metadata: Mapping[Any, Any]) -> Option | None:
    """The `Option` in a field's metadata; None for a field that is no flag."""
    found = metadata.get(_KEY)
    assert found is None or isinstance(found, Option)
    return found


def flag_of(name: str) -> str:
    """The flag of a name with underscores."""
    return "--" + name.replace("_", "-")


def split_names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def names_given(given: Sequence[str]) -> tuple[str, ...]:
    """Names by a flag that may be repeated: given once it is a list, else each is one name."""
    return split_names(given[0]) if len(given) == 1 else tuple(given)


def check_option(config: object, name: str, is_valid: bool, need: str) -> None:
    """Refuse the value of one field.

    Args:
        config: The config that is being made.
        name: Name of the field.
        is_valid: Whether its value can be used.
        need: The valid values, for the message: "at least 1".

    Raises:
        InputError: The value is not valid; names the flag and the value.
    """
    if not is_valid:
        value = getattr(config, name)
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        raise InputError(f"{_flag_of_field(config, name)} {shown}: give {need}")


def check_at_least(config: object, least: float, *names: str) -> None:
    """Refuse the values of fields below a bound, and those without end; None passes.

    Raises:
        InputError: A value is too small; names the flag and the value.
    """
    for name in names:
        value = getattr(config, name)
        is_valid = value is None or least <= value < math.inf
        check_option(config, name, is_valid, f"at least {least:g}")


def check_positive(config: object, *names: str) -> None:
    """Refuse the values of fields that are not above 0 and finite; None passes.

    Raises:
        InputError: A value is none; names the flag and the value.
    """
    for name in names:
        value = getattr(config, name)
        check_option(config, name, value is None or 0 < value < math.inf, "more than 0")


def _flag_of_field(config: object, name: str) -> str:
    (field,) = (field for field in fields(config) if field.name == name)  # type: ignore[arg-type]
    option = option_of(field.metadata)
    return flag_of(name if option is None or option.name is None else option.name)
