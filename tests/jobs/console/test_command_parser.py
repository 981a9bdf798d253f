"""What a parser refuses is shown without secrets and without commands to the terminal."""

import re

import pytest

from fastformers.jobs import score
from fastformers.jobs.console.cli import COMMANDS, main
from fastformers.jobs.console.command_parser import CommandParser

GIVEN = ["c", "--bundle", "b", "--output", "o"]


def test_values_of_flags_and_names_of_commands_only_show(capsys):
    for arguments in (
        ["score", "c", "--bundle", "b", "--output", "o", "--limit", "s3://KEY:SECRET@bucket"],
        ["score", "c", "--bundle", "b", "--output", "o", "s3://KEY:SECRET@b\x1b[2J\x9b"],
        ["status", "o", "s3://KEY:SECRET@bucket", "\x1b[2Jx\ny"],
        ["s3://KEY:SECRET@bucket/a\x1b[2J"],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        shown = capsys.readouterr().err
        assert "s3://***@b" in shown
        assert not {"\x1b", "\x9b"} & set(shown)
        assert ": error: " in shown.splitlines()[-1]


@pytest.fixture
def parsers():
    """The parser of every command, when its help is asked for."""
    found = []
    for command in [*COMMANDS, "cost refresh"]:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(CommandParser, "print_help", lambda parser: found.append(parser))
            main([*command.split(), "--help"])
    assert len(found) == len(COMMANDS) + 1
    return found


def test_no_flag_is_abbreviated(capsys, parsers):
    assert {parser.allow_abbrev for parser in parsers} == {False}
    for command in (["score", *GIVEN, "--limi", "3"], ["status", "o", "--wat"], ["--vers"]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 2
    assert "--limi 3; did you mean --limit?" in capsys.readouterr().err


def test_an_unknown_flag_is_refused_with_the_nearest_known_one_and_a_short_usage(capsys):
    with pytest.raises(SystemExit):
        score.parse([*GIVEN, "--limt=3"])
    usage, error = capsys.readouterr().err.splitlines()
    assert usage == "usage: fastformers score CORPUS --bundle BUNDLE --output DIR [FLAG ...]"
    assert error.endswith("unrecognized arguments: --limt=3; did you mean --limit?")


def test_what_was_given_is_known_even_where_it_is_the_default():
    options = score.parse([*GIVEN, "--text-column", "text"])
    assert options.given == {
        "bundle": "--bundle",
        "output": "--output",
        "text_column": "--text-column",
    }
    assert options.settings["text_column"] == "text"
    assert not {"json", "config", "dry_run", "storage_options", "given"} & options.settings.keys()


def test_settings_show_no_secret():
    options = score.parse(["s3://key:SECRET@bucket/c", *GIVEN[1:]])
    assert options.settings["corpus"] == "s3://***@bucket/c"


def test_values_and_defaults_look_as_a_user_types_them(parsers):
    python = re.compile(r"\(\(|,\)|\([\[{<']|None|True|False|Path\(|\de-0")
    odd = []
    for parser in parsers:
        for action in parser._actions:
            if python.search(action.help):
                odd.append(f"{parser.prog}: {action.help}")
            if action.metavar is None:
                shown = ",".join(map(str, action.choices or ()))
                is_odd = action.nargs != 0 and len(set(shown.split(","))) < len(shown.split(","))
            else:
                is_odd = re.search("[-_]", action.metavar)
            if is_odd:
                odd.append(f"{parser.prog}: {action.option_strings} {action.metavar}")
    assert odd == []


def test_every_flag_says_what_holds_without_it_and_stands_in_a_group(parsers):
    silent = [
        f"{parser.prog} {action.option_strings[0]}: {action.help}"
        for parser in parsers
        for action in parser._actions
        if action.option_strings and action.nargs != 0 and not action.required
        if not action.help.endswith(")")
    ]
    assert silent == []
    groups = {group.title for parser in parsers for group in parser._action_groups}
    assert "settings and output of this command" in groups
    large = [parser for parser in parsers if len(parser._actions) > 20]
    assert all(len(parser._action_groups) >= 5 for parser in large)
