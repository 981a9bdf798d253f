"""Frozen dataclasses as plain JSON values and back, each value checked against its field's type.

    RunReport -> [json_values] -> report.json -> [json_values] -> RunReport

A field is a number, a text, a truth value, one of some texts, another dataclass, a tuple, a
dictionary by text, or one of these or None. Keys are the names of the fields. This module knows
nothing of what they mean.
"""

import json
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def parse_last_json(text: str) -> dict[str, Any]:
    """The JSON object that a command printed last: all of a text, or its last line.

    Raises:
        ValueError: Neither is an object.
    """
    text = text.strip()
    for candidate in (text, text.rpartition("\n")[2]):
        try:
            content = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(content, dict):
            return content
    raise ValueError("neither all of it nor its last line is a JSON object")


def to_plain(value: Any) -> Any:
    """A dataclass as the values that `json.loads` would give: dictionaries, lists and scalars."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: to_plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(inner) for inner in value]
    return value


def from_plain(kind: Any, value: Any, place: str = "") -> Any:
    """The value of type `kind` from which `to_plain` made `value`.

    Args:
        kind: A dataclass, or the annotation of a field of one.
        value: What `json.loads` gave.
        place: Path of keys to the value, for messages.

    Raises:
        ValueError: A key is missing or unknown, or a value has another type; names the place.
    """
    if isinstance(kind, type) and is_dataclass(kind):
        return _read_fields(kind, value, place)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in parts:
            return None
        [kind] = [part for part in parts if part is not NoneType]
        return from_plain(kind, value, place)
    if origin is Literal:
        if value not in parts:
            raise ValueError(f"{place} is {value!r}, not one of {', '.join(map(str, parts))}")
        return value
    if origin is dict:
        _check_type(value, dict, place)
        return {key: from_plain(parts[1], inner, f"{place}.{key}") for key, inner in value.items()}
    if origin is tuple:
        _check_type(value, list, place)
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        if len(kinds) != len(value):
            raise ValueError(f"{place} has {len(value)} values, not {len(kinds)}")
        return tuple(
            from_plain(kind, inner, f"{place}[{index}]")
            for index, (kind, inner) in enumerate(zip(kinds, value, strict=True))
        )
    if kind is float and type(value) is int:
        return float(value)
    _check_type(value, kind, place)
    return value


def _read_fields(kind: type, value: Any, place: str) -> Any:
    _check_type(value, dict, place or kind.__name__)
    kinds = _kinds_of(kind)
    prefix = f"{place}." if place else ""
    for name in kinds:
        if name not in value:
            raise ValueError(f"{prefix}{name} is missing")
    for name in value:
        if name not in kinds:
            raise ValueError(f"{prefix}{name} is unknown")
    return kind(
        **{name: from_plain(inner, value[name], f"{prefix}{name}") for name, inner in kinds.items()}
    )


def _check_type(value: Any, kind: type, place: str) -> None:
    if type(value) is not kind:
        raise ValueError(f"{place} is of type {type(value).__name__}, not {kind.__name__}")


@cache
def _kinds_of(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
