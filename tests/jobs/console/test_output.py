"""How commands end: with one line of JSON, or with one line that says what to change."""

import ast
import errno
import json
import logging
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastformers.errors import AuditError, FastformersError, InputError
from fastformers.inference.engines import ENGINES
from fastformers.installation import how_to_install
from fastformers.jobs.console.cli import COMMANDS, module_of
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.output import EXTRA_OF, ConsoleHandler, console, run


def raising(error):
    """A job that raises an error."""

    def job():
        raise error

    return job


def test_a_result_is_one_line_of_json_and_nothing_else(capsys):
    result = {"rows": 7, "name": "a\nb", "share": 0.5, "missing": None}
    assert run(lambda: result) == 0
    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()
    assert json.loads(line) == result
    assert captured.err == ""


def options(*flags):
    return CommandParser(prog="job").parse_args(flags)


def test_a_terminal_gets_the_json_line_only_if_it_is_asked_for(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(lambda: {"rows": 7}, options()) == 0
    assert capsys.readouterr().out == ""
    assert run(lambda: {"rows": 7}, options("--json")) == 0
    assert capsys.readouterr().out == '{"rows": 7}\n'


def test_quiet_hides_all_but_warnings_and_errors(capsys):
    def job():
        console.print("a table")
        logging.getLogger("fastformers.a").warning("a warning")
        raise InputError("none.csv: no such file")

    logging.getLogger().addHandler(handler := ConsoleHandler())
    try:
        assert run(job, options("--quiet")) == 2
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr().err == "a warning\nerror: none.csv: no such file\n"
    assert not console.quiet


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        ((), ["warning", "other warning"]),
        (("--verbose",), ["info", "warning", "other warning"]),
        (("--log-level", "debug"), ["debug", "info", "warning", "other warning"]),
        (("--log-level", "error"), []),
    ],
)
def test_as_many_log_lines_are_shown_as_are_asked_for(capsys, flags, lines):
    def job():
        ours, others = logging.getLogger("fastformers.a"), logging.getLogger("other")
        ours.debug("debug"), ours.info("info"), ours.warning("warning")
        others.info("other info"), others.warning("other warning")
        return {}

    logging.getLogger().addHandler(handler := ConsoleHandler())
    try:
        assert run(job, options(*flags)) == 0
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--verbose", "--log-level", "debug"), "--verbose is --log-level info"),
        (("--verbose", "--quiet"), "--quiet and --verbose contradict each other"),
    ],
)
def test_what_contradicts_itself_is_refused(capsys, flags, message):
    assert run(lambda: pytest.fail("worked"), options(*flags)) == 2
    assert message in capsys.readouterr().err


def test_every_command_hands_its_options_on():
    for name in COMMANDS:
        source = Path(find_spec(module_of(name)).origin).read_text()
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        runs = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "run"]
        assert runs, name
        assert all(len(call.args) == 2 for call in runs), name


@pytest.mark.parametrize("kind", [*FastformersError.__subclasses__()])
def test_an_error_raised_on_purpose_is_one_line_with_nothing_on_stdout(capsys, kind):
    status = 1 if kind is AuditError else 2
    assert run(raising(kind("[red]a.jsonl[/red]:\n   row 1:\trepair it"))) == status
    captured = capsys.readouterr()
    assert captured.err == "error: [red]a.jsonl[/red]: row 1: repair it\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch", "compress"),
        ("transformers.models.bert", "compress"),
        ("google.cloud.billing", "gcp"),
        ("openvino", "openvino"),
        ("matplotlib.pyplot", "report"),
    ],
)
def test_the_extra_that_brings_a_missing_module_is_named(capsys, module, extra):
    assert run(raising(ModuleNotFoundError("no such module", name=module))) == 2
    line = f"error: {module} is not installed: {how_to_install(extra)}"
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize("name", ["numpy", "cluster.no_such_module", None])
def test_a_module_that_no_extra_brings_is_a_mistake_of_ours(name):
    with pytest.raises(ModuleNotFoundError):
        run(raising(ModuleNotFoundError("no such module", name=name)))


def test_every_extra_that_is_named_exists():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert set(EXTRA_OF.values()) <= project["optional-dependencies"].keys()


def test_the_extra_that_brings_an_engine_is_named_where_it_is_missing():
    extras = {entry.package: entry.extra for entry in ENGINES.values() if entry.extra}
    assert extras["openvino"] == "openvino"
    assert extras.items() <= EXTRA_OF.items()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "No space left on device"),
        (errno.EACCES, "Permission denied"),
        (errno.EROFS, "Read-only file system"),
    ],
)
def test_a_disk_that_refuses_a_file_is_one_line_with_its_name(capsys, code, words):
    assert run(raising(OSError(code, words, "out/part-00000"))) == 2
    line = f"error: out/part-00000: {words}; free space or change it\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("error", [ZeroDivisionError("no rows"), KeyError("rows")])
def test_any_other_error_is_a_mistake_of_ours_and_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run(raising(error))


@pytest.mark.parametrize(
    ("resume", "line"),
    [("run it again to go on", "interrupted. run it again to go on"), ("", "interrupted.")],
)
def test_an_interrupted_job_says_how_to_go_on(capsys, resume, line):
    assert run(raising(KeyboardInterrupt()), resume=resume) == 130
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"{line}\n")


def test_ray_ends_a_command_on_sigterm_while_it_starts(capsys):
    assert run(raising(SystemExit(15)), resume="run it again") == 143
    assert capsys.readouterr().err == "interrupted. run it again\n"
    with pytest.raises(SystemExit):
        run(raising(SystemExit(1)))


def test_a_measuring_command_says_how_it_measured_and_keeps_its_secrets(capsys):
    words = ["--quiet", "--storage-options", '{"secret_key": "hush"}', "a b"]
    parser = CommandParser(prog="fastformers bench")
    parser.add_argument("corpus")
    parser.add_argument("--storage-options")
    assert run(lambda: {"rate": 1.5}, parser.parse_args(words), measures=True) == 0
    result = json.loads(capsys.readouterr().out)
    measured = result.pop("measured")
    assert result == {"rate": 1.5}
    assert measured["command"] == "fastformers bench --quiet --storage-options ... 'a b'"
    assert "core" in measured["machine"]
    assert {"fastformers", "python"} <= set(measured["versions"])
