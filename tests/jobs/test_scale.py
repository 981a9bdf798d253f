"""`fastformers scale`: what it refuses before any work, and a whole test on two actors."""

import json

import pytest

from fastformers.cluster.scaling.scale_report import ScaleReport
from fastformers.jobs.console.cli import main
from fastformers.jobs.scale import parse


@pytest.fixture
def corpus(tmp_path, write_rows):
    rows = [{"text": f"a cat sat on the mat {row} " * (1 + row % 5)} for row in range(400)]
    return write_rows(tmp_path / "corpus.jsonl", rows)


@pytest.fixture
def command(capsys, tmp_path, bundle, corpus):
    """Runs `scale`; returns its status, what it printed last, and what it said."""

    def run(*options):
        arguments = ["scale", str(corpus), "--bundle", str(bundle.path)]
        status = main([*arguments, "--output", str(tmp_path / "out"), *options])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--repeats", "0"), "--repeats 0: give at least 1"),
        (("--simulate", "0"), "--simulate 0: give at least 1"),
        (("--simulate", "9", "--actors-per-node", "0"), "--actors-per-node 0: give at least 1"),
        (("--load-slots", "0"), "--load-slots"),
        (("--simulate", "9", "--request-s", "-1"), "--request-s -1: give at least 0"),
        (("--num-nodes", "0"), "--num-nodes 0: give at least 1"),
        (("--usd-per-hour", "0"), "--usd-per-hour must be above 0"),
        (("--instance-type", "c7i.4xlarg"), "did you mean c7i.4xlarge"),
        (("--limit", "0"), "--limit 0"),
        (("--actors-per-node", "8"), "nothing is simulated; add --simulate"),
        (("--request-s", "0.1"), "nothing is simulated; add --simulate"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line_before_any_work(
    command, tmp_path, options, reason
):
    status, out, err = command(*options)
    assert (status, out) == (2, "")
    [line] = err.splitlines()
    assert reason in line
    assert not (tmp_path / "out").exists()


def test_a_directory_with_something_else_in_it_is_refused(command, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "novel.txt").write_text("It was a dark and stormy night.")
    status, out, err = command()
    assert (status, out) == (2, "")
    assert "is not empty and holds no scaling test of ours" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["novel.txt"]


def test_lists_of_numbers_are_parsed_and_others_refused(capsys):
    arguments = ["corpus", "--bundle", "b", "--output", "o", "--load-actors"]
    assert parse([*arguments, "10,100"]).load_actors == (10, 100)
    with pytest.raises(SystemExit):
        parse([*arguments, "ten"])
    assert "'ten' is no list of numbers" in capsys.readouterr().err


@pytest.mark.cluster
def test_a_whole_test_on_two_actors(command, tmp_path):
    options = ["--num-actors", "2", "--oversubscribe", "--repeats", "2", "--shard-seconds", "0.005"]
    options += ["--load-slots", "40", "--load-actors", "2", "--simulate", "16"]
    status, out, err = command(*options, "--usd-per-hour", "0.5")
    assert status == 0, err
    last = json.loads(out.splitlines()[-1])
    points = {(point["kind"], point["actors"]): point for point in last["points"]}
    assert set(points) == {("strong", 1), ("strong", 2), ("weak", 1), ("weak", 2)}
    one, two = points["strong", 1], points["strong", 2]
    assert (one["speedup"], one["efficiency"], one["nodes"]) == (1.0, 1.0, 1)
    assert two["speedup"] == pytest.approx(two["rows_per_second"] / one["rows_per_second"])
    assert two["efficiency"] == pytest.approx(two["speedup"] / 2)
    for point in points.values():
        million_h = 1e6 / point["rows_per_second"] / 3600
        assert point["usd_per_million"] == pytest.approx(0.5 * million_h)
    assert points["weak", 2]["rows_per_second"] == two["rows_per_second"]
    assert last["serial_share"]["low"] <= last["serial_share"]["value"]
    assert last["universal_law"] is None
    assert [point["actors"] for point in last["simulated"]] == [1, 2, 4, 8, 16]
    assert [load["slots"] for load in last["driver"]] == [40, 2]
    assert {(point["kind"], point["actors"]) for point in last["checked"]} == {
        ("strong", 1),
        ("strong", 2),
        ("weak", 1),
        ("idle", 2),
    }
    assert last["rows"] == 400
    kept = json.loads((tmp_path / "out" / "scale.json").read_text())
    said_beside = {key: last[key] for key in ("output", "page", "measured")}
    assert {**kept, **said_beside} == last
    assert ScaleReport.from_json(kept, path="scale.json").to_json() == kept
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left <= {"shards", "scale.json", "scale.html"}
    assert "Scaling" in err
