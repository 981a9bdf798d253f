"""Measurements are filed with their conditions, or refused."""

import json

import pytest

from fastformers.errors import InputError
from fastformers.jobs.results import filed

MEASURED = {"command": "make x", "at": "2026-01-01", "machine": "m", "versions": {"ray": "1"}}


def test_the_last_line_of_a_command_is_filed_as_it_is(tmp_path):
    printed = tmp_path / "printed.txt"
    content = {"seconds": [1.5, 2.5], "measured": MEASURED}
    printed.write_text(f"progress\n{json.dumps(content)}\n")
    one, is_replaced = filed.add(printed, "a-b", {"title": "A b"}, tmp_path)
    assert not is_replaced
    assert filed.load("a-b", tmp_path).content == {
        **content,
        "measured": {**MEASURED, "title": "A b"},
    }
    assert one.value("seconds.-1") == 2.5
    assert filed.add(printed, "a-b", {}, tmp_path)[1]


def test_conditions_that_stand_under_other_keys_are_taken(tmp_path):
    printed = tmp_path / "printed.json"
    old = {"measured_at": "2026-01-01", "cpu_model": "EPYC", "cores": 2, "versions": {"ray": "1"}}
    printed.write_text(json.dumps(old, indent=2))
    with pytest.raises(InputError, match="does not say command; give --command"):
        filed.add(printed, "x", {}, tmp_path)
    one, _ = filed.add(printed, "x", {"command": "make x", "at": "2026-01-02"}, tmp_path)
    assert one.measured["machine"] == "2 cores of EPYC"
    assert one.measured["at"] == "2026-01-02"
    assert one.commands == ["make x"]


def test_directories_of_the_machine_that_measured_are_not_filed(tmp_path):
    printed = tmp_path / "printed.json"
    command = "score /data/imdb/test.parquet --bundle hf://org/a@b --output=out/x --texts /mnt/a/*"
    content = {"bundle": "/home/me/bundle", "notes": ["1 of 2 rows/s", "https://a.org/b/c"]}
    printed.write_text(json.dumps({**content, "measured": {**MEASURED, "command": command}}))
    one, _ = filed.add(printed, "x", {}, tmp_path)
    assert one.content["bundle"] == "bundle"
    assert one.content["notes"] == content["notes"]
    assert one.commands == ["score test.parquet --bundle hf://org/a@b --output=out/x --texts *"]


def test_no_filed_measurement_names_a_directory_of_its_machine():
    for one in filed.load_all("*", filed.DIRECTORY):
        assert filed.without_directories(one.content) == one.content, one.name


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("no JSON", "x", "neither the file nor its last line"),
        ("[1]", "x", "neither the file nor its last line"),
        ("{}", "x", "does not say command, at, machine, versions"),
        ("{}", "../x", "--as ../x"),
        ("\udcff", "x", "printed.txt: is no text"),
        ('{"measured": 5}', "x", "its `measured` is no object: 5"),
        (json.dumps({"measured": {**MEASURED, "command": [1]}}), "x", "is no command line: .1."),
    ],
)
def test_what_cannot_be_filed_is_refused(tmp_path, text, name, reason):
    printed = tmp_path / "printed.txt"
    printed.write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=reason):
        filed.add(printed, name, {}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["printed.txt"]


def test_a_change_of_a_row_is_a_change_of_a_line(tmp_path):
    table = {"columns": ["a", "b"], "rows": [["x", [1.5, "{}x"]], ["y", None]]}
    filed.write(tmp_path / "t.json", {"table": table, "rate": {"x": 1}})
    text = (tmp_path / "t.json").read_text()
    assert json.loads(text) == {"table": table, "rate": {"x": 1}}
    assert '   ["x", [1.5, "{}x"]],\n   ["y", null]\n' in text


def test_a_path_that_leads_nowhere_is_named_with_what_is_there():
    table = {"columns": ["", "rows/s"], "rows": [["**Ray** `x`", [1.5, "{}x"]]]}
    one = filed.Filed(name="one", content={"steps": [{"s": 1}], "table": table})
    assert one.value("table.Ray x.rows/s") == 1.5
    for path, reason in (
        ("steps.1.s", "one.steps.1.s: no 1 in it"),
        ("steps.0.t", "no t in it (s)"),
        ("table.Spark.rows/s", "no Spark in it"),
        ("steps.0.s.x", "no x in it"),
    ):
        with pytest.raises(InputError) as error:
            one.value(path)
        assert reason in str(error.value)


def test_a_pattern_is_a_group_in_the_order_of_names(tmp_path):
    for name in ("s-2", "s-1", "t"):
        filed.write(tmp_path / f"{name}.json", {"measured": MEASURED})
    assert [one.name for one in filed.load_all("s-*", tmp_path)] == ["s-1", "s-2"]
    with pytest.raises(InputError, match="no file in"):
        filed.load_all("u-**", tmp_path)
    with pytest.raises(InputError, match="--as u"):
        filed.load_all("u", tmp_path)
