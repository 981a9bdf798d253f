"""The page of a run that was scored before."""

import json

import pytest

import fastformers.jobs.console.page
import fastformers.jobs.report
from fastformers.cluster.report.run_report import FORMAT_VERSION
from fastformers.cluster.shards.identity import RUN_FILE, write_record
from fastformers.cluster.storage.directory import open_directory
from fastformers.installation import how_to_install
from fastformers.jobs.console.cli import main


@pytest.fixture
def output(tmp_path, make_report):
    home = tmp_path / "__run__"
    home.mkdir()
    write_record(open_directory(str(home)), RUN_FILE, {})
    (home / "report.json").write_text(json.dumps(make_report(rows=3).to_json()))
    return tmp_path


def test_the_page_is_written_beside_the_report(output, monkeypatch, capsys):
    for needed in ("matplotlib", "jinja2"):
        pytest.importorskip(needed, reason="the page needs the extra `report`")
    monkeypatch.setattr(
        fastformers.jobs.console.page, "render_page", lambda report: f"<p>{report.rows} é</p>"
    )
    assert main(["report", str(output)]) == 0
    assert (output / "__run__" / "report.html").read_text(encoding="utf-8") == "<p>3 é</p>"
    assert json.loads(capsys.readouterr().out) == {"page": f"{output}/__run__/report.html"}


def test_without_the_extra_a_run_ends_well_and_says_how_to_get_the_page(
    output, make_report, monkeypatch, capsys
):
    for module in (fastformers.jobs.console.page, fastformers.jobs.report):
        monkeypatch.setattr(module, "can_draw", lambda: False)
    assert (
        fastformers.jobs.console.page.write_page(open_directory(str(output)), make_report()) is None
    )
    assert how_to_install("report") in capsys.readouterr().err
    assert not (output / "__run__" / "report.html").exists()
    assert main(["report", str(output)]) == 2
    assert how_to_install("report") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("run.json", None, "holds no finished run"),
        ("run.json", {"identity": {}}, "run.json was written by an older version"),
        ("run.json", {}, "run.json is not ours"),
        ("report.json", None, "holds no finished run"),
        ("report.json", {"rows": 3}, "written by an older version"),
        ("report.json", {"format_version": 99}, "written by a newer version"),
        (
            "report.json",
            {"format_version": FORMAT_VERSION, "rows": 3},
            "damaged: unique_rows is missing",
        ),
        ("report.json", [], "is not a report of ours"),
    ],
)
def test_what_holds_no_run_is_refused(output, capsys, file, content, reason):
    (output / "__run__" / file).unlink()
    if content is not None:
        (output / "__run__" / file).write_text(json.dumps(content))
    assert main(["report", str(output)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert reason in line
    assert str(output) in line


def test_many_runs_are_compared_and_broken_ones_named(tmp_path, make_report, capsys):
    old = {**make_report().to_json(), "format_version": 5}
    for key in ("corpus", "history", "early_quote"):
        del old[key]
    for name, content in (("a", make_report(output="a").to_json()), ("b", old), ("c", [])):
        home = tmp_path / name / "__run__"
        home.mkdir(parents=True)
        write_record(open_directory(str(home)), RUN_FILE, {})
        (home / "report.json").write_text(json.dumps(content))
    assert main(["report", f"{tmp_path}/?", str(tmp_path / "none")]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [run["run"] for run in found["runs"]] == ["a"]
    assert set(found["runs"][0]["errors"]) == {"cost", "first", "50%"}
    assert [group["runs"] for group in found["groups"]] == [1]
    assert list(found["left_out"]) == [f"{tmp_path}/{name}" for name in ("b", "c", "none")]
    assert len([line for line in err.splitlines() if line.startswith("left out: ")]) == 3
    assert "By corpus and instance type" in err
    assert main(["report", f"{tmp_path}/b", f"{tmp_path}/c"]) == 2
    assert "none of 2 runs has a quote" in capsys.readouterr().err
