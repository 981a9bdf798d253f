"""The command line chooses a command and hands the rest on; commands explain their flags."""

import argparse
import importlib
import sys
from types import ModuleType

import pytest

from fastformers.jobs.console.cli import COMMANDS, main, module_of
from fastformers.jobs.console.command_parser import CommandParser


def test_unknown_command_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["scoer"])
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "invalid choice: 'scoer'" in captured.err
    assert all(name in captured.err for name in COMMANDS)


def test_a_command_is_required(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_help_has_a_line_for_each_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, meaning in COMMANDS.items():
        assert f"{name} {meaning}" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_a_module_with_a_main(name):
    assert callable(importlib.import_module(module_of(name)).main)


@pytest.mark.parametrize("status", [0, 2, 130])
def test_a_command_gets_its_arguments_and_its_status_is_returned(monkeypatch, status):
    asked = []
    command = ModuleType("fastformers.jobs.score")
    command.main = lambda arguments: asked.append(arguments) or status
    monkeypatch.setitem(sys.modules, "fastformers.jobs.score", command)
    arguments = ["corpus", "--bundle", "b", "--help"]
    assert main(["score", *arguments]) == status
    monkeypatch.setattr(sys, "argv", ["fastformers", "score", *arguments])
    assert main() == status
    assert asked == [arguments] * 2


@pytest.fixture
def parser_of(monkeypatch):
    """The parser of a command, as it is before it reads an argument."""

    def get(command):
        made = []
        job = importlib.import_module(module_of(command.split()[0]))
        with monkeypatch.context() as patch:
            nothing = argparse.Namespace(config=None), []
            patch.setattr(
                argparse.ArgumentParser,
                "parse_known_args",
                lambda parser, *_: made.append(parser) or nothing,
            )
            (job.parse_refresh if command == "cost refresh" else job.parse)([])
        return made[-1]

    return get


@pytest.mark.parametrize("command", [*COMMANDS, "cost refresh"])
def test_every_argument_is_explained_and_refused_in_plain_text(parser_of, command):
    parser = parser_of(command)
    assert isinstance(parser, CommandParser)
    actions = parser._actions
    assert len(actions) > 1
    assert [action.dest for action in actions if not action.help] == []
