"""The tool writes READMEs and files measurements; what it cannot do is one line."""

import json

import pytest

from fastformers.jobs.results import __main__ as tool
from fastformers.jobs.results import filed

MEASURED = {"command": ["make x", "make y"], "at": "2026-01-01", "machine": "m", "versions": "v"}
README = "# A\n\n9<!--m.rate:.1f--> rows/s\n\n<!-- results: table m -->\n<!-- end -->\n"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "READMES", ("README.md",))
    monkeypatch.setattr(filed, "DIRECTORY", tmp_path)
    return tmp_path


def test_a_measurement_is_filed_and_shown_with_its_commands(checkout, capsys):
    table = {"columns": ["", "rows/s"], "formats": [None, "{:,.0f}"], "rows": [["x", 1234.5]]}
    (checkout / "printed").write_text(json.dumps({"rate": 1.25, "table": table}))
    (checkout / "README.md").write_text(README)
    conditions = ["--command", "make x", "--at", "2026-01-01", "--machine", "m", "--versions", "v"]
    assert tool.main(["add", str(checkout / "printed"), "--as", "m", *conditions]) == 0
    assert tool.main([]) == 0
    shown = capsys.readouterr()
    assert "README.md: m\n    make x" in shown.err
    assert json.loads(shown.out.splitlines()[-1])["changed"] == ["README.md"]
    text = (checkout / "README.md").read_text()
    assert "\n1.2<!--m.rate:.1f--> rows/s\n" in text
    assert (
        "<!-- results: table m -->\n| | rows/s |\n| --- | --- |\n| x | 1,234 |\n<!-- end -->"
        in text
    )
    assert tool.main([]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == []


def test_a_measurement_that_is_missing_is_named_with_its_place(checkout, capsys):
    (checkout / "README.md").write_text(README)
    assert tool.main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: README.md:3: ")
    assert "--as m" in error
    assert (checkout / "README.md").read_text() == README


def test_outside_a_checkout_it_says_so(checkout, capsys):
    assert tool.main([]) == 2
    assert "is no checkout of the project" in capsys.readouterr().err
