import pytest

from fastformers.inference.engines import ENGINE_OPTIONS, ENGINES, REFERENCE_ENGINE
from jobs.console.output import EXTRA_OF
from jobs.score import parse


def test_the_command_line_offers_every_engine(capsys):
    command = ["corpus", "--bundle", "b", "--output", "o"]
    for option in ENGINE_OPTIONS:
        assert parse([*command, "--engine", option]).engine == option
    assert parse(command).engine == REFERENCE_ENGINE
    with pytest.raises(SystemExit):
        parse([*command, "--engine", "tvm"])
    shown = capsys.readouterr().err
    assert all(option in shown for option in ENGINE_OPTIONS)


def test_the_extra_that_brings_an_engine_is_named_where_it_is_missing():
    extras = {entry.package: entry.extra for entry in ENGINES.values() if entry.extra}
    assert extras["openvino"] == "openvino"
    assert extras.items() <= EXTRA_OF.items()
