"""Settings of a command in a file: the same names as the flags, in YAML.

    --config FILE.yaml -> [config_file] -> words of a command line, before the user's own -> parser

A setting becomes the words that a user would have typed, so its parser reads, checks and refuses it
as it does those. Text stays as it is written: `1e9`, `010` and `no` are not turned into something
else; only `true`, `false` and `null` have a meaning. This module knows nothing of any command.
"""

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from fastformers.errors import InputError

_LITERALS = {"true": True, "false": False, "null": None, "~": None, "": None}


class _Loader(yaml.BaseLoader):
    """Reads every value as text, but for true, false and null without quotes; a key stands once."""


def _construct_scalar(loader: _Loader, node: yaml.ScalarNode) -> Any:
    return _LITERALS.get(node.value, node.value) if node.style is None else node.value


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key, line = key_node.value, key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise InputError(f"line {line}: is no name of a flag")
        if key in found:
            raise InputError(f"line {line}: {key} stands there twice; leave one of them out")
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Loader.add_constructor("tag:yaml.org,2002:str", _construct_scalar)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def load_settings(path: Path) -> dict[str, Any]:
    """The settings in a file, by name: text, true, false, None, lists and mappings.

    Raises:
        InputError: It cannot be read, is not YAML, or is no list of names and values.
    """
    try:
        content = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise InputError(f"--config {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--config {path}: is not text in UTF-8") from error
    except InputError as error:
        raise InputError(f"--config {path}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f"line {mark.line + 1}: "
        reason = getattr(error, "problem", None) or error
        raise InputError(f"--config {path}: {line}is not YAML: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"--config {path}: write a flag's name and value on each line: limit: 100")
    return content


def words_of(
    settings: Mapping[str, Any],
    actions: Sequence[argparse.Action],
    given: Collection[argparse.Action],
    *,
    path: Path,
) -> list[str]:
    """Words of a command line that say the same as settings; those that are given are left out.

    Args:
        settings: Values by name of the flag, with dashes or underscores.
        actions: The flags of the command; a file cannot set others.
        given: Flags that the user gave on the command line.
        path: The file, for messages.

    Raises:
        InputError: A name is no flag of the command, or a value none that it takes.
    """
    by_name = {
        name.removeprefix("--"): action
        for action in actions
        for name in action.option_strings
        if name.startswith("--")
    }
    words: list[str] = []
    for name, value in settings.items():
        action = by_name.get(str(name).replace("_", "-"))
        if action is None:
            raise InputError(f"--config {path}: {name}: no such flag{nearest(name, by_name)}")
        if action not in given and value is not None:
            flag = f"--{str(name).replace('_', '-')}"
            words += _words(flag, action, value, where=f"--config {path}: {name}")
    return words


def nearest(name: object, known: Collection[str]) -> str:
    """The end of a message about an unknown name: which known one may have been meant."""
    found = get_close_matches(str(name).replace("_", "-"), known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _words(flag: str, action: argparse.Action, value: Any, *, where: str) -> list[str]:
    if isinstance(value, bool):
        if action.nargs not in (0, "?"):
            raise InputError(f"{where}: takes a value, not {str(value).lower()}")
        return [flag] if value else []
    if action.nargs == 0:
        raise InputError(f"{where}: is true or false, not {value}")
    if isinstance(value, list):
        if not all(isinstance(one, str) for one in value):
            raise InputError(f"{where}: a list holds texts and numbers, nothing else")
        if isinstance(action, argparse._AppendAction):
            return [f"{flag}={one}" for one in value]
        if action.metavar != "A,B":
            raise InputError(f"{where}: takes one value, not a list")
        value = ",".join(value)
    if isinstance(value, dict):
        if "JSON" not in str(action.metavar):
            raise InputError(f"{where}: takes one value, not a mapping")
        value = json.dumps(value)
    return [f"{flag}={value}"]
