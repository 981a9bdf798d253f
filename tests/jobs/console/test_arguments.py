import pytest

from fastformers.inference.engines import ENGINE_OPTIONS, REFERENCE_ENGINE
from fastformers.jobs.score import parse


def test_the_command_line_offers_every_engine(capsys):
    command = ["corpus", "--bundle", "b", "--output", "o"]
    for option in ENGINE_OPTIONS:
        assert parse([*command, "--engine", option]).engine == option
    assert parse(command).engine == REFERENCE_ENGINE
    with pytest.raises(SystemExit):
        parse([*command, "--engine", "tvm"])
    shown = capsys.readouterr().err
    assert all(option in shown for option in ENGINE_OPTIONS)
