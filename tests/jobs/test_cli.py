"""What the commands say of their flags."""

import argparse
import importlib

import pytest

from jobs.cli import COMMANDS


@pytest.fixture
def parser_of(monkeypatch):
    """The parser of a command, as it is before it reads an argument."""

    def get(command):
        made = []
        job = importlib.import_module(f"jobs.{command.split()[0]}")
        with monkeypatch.context() as patch:
            patch.setattr(
                argparse.ArgumentParser, "parse_args", lambda parser, _: made.append(parser)
            )
            (job.parse_refresh if command == "cost refresh" else job.parse)([])
        return made[0]

    return get


@pytest.mark.parametrize("command", [*COMMANDS, "cost refresh"])
def test_every_argument_is_explained(parser_of, command):
    actions = parser_of(command)._actions
    assert len(actions) > 1
    assert [action.dest for action in actions if not action.help] == []
