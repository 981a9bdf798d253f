"""`fastformers ablate` from arguments to files, on models of random weights."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.ablation.shapes import ABLATION_SHAPES, BERT_BASE_SHAPES
from fastformers.cluster.execution.topology import discover_topology, plan_core_sets
from fastformers.jobs.ablate import parse
from fastformers.jobs.console.cli import main

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def teacher(save_teacher, tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher") / "teacher")


@pytest.fixture(scope="module")
def eval_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("eval") / "eval.parquet"
    table = pa.table({"text": ["a cat", "the dog ran"] * 6, "label": ["yes", "no"] * 6})
    pyarrow.parquet.write_table(table, path)
    return path


@pytest.fixture
def ablate(capsys, tmp_path, monkeypatch):
    """Run it on one core: threads that wait for each other cost more than they bring here."""
    monkeypatch.setattr(
        "fastformers.jobs.ablate.plan_core_sets",
        lambda topology, **counts: plan_core_sets(topology, **{**counts, "num_actors": 1}),
    )

    def run(*options, output=tmp_path / "out"):
        status = main(["ablate", "--output", str(output), *map(str, options)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return run


def test_table_plot_and_one_line_of_json(ablate, teacher, eval_file, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    status, out, err = ablate(
        *("--teacher", teacher, "--bundle", bundle.path, "--bundle", bundle.path),
        *("--eval", eval_file, "--baseline-rows", 5, "--repeats", 2),
        *("--instance-type", "Standard_F16s_v2"),
    )
    assert status == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert len(out.splitlines()) == 1
    measured = summary.pop("measured")
    assert f"--teacher {teacher} --bundle {bundle.path} --bundle" in measured["command"]
    assert {"torch", "onnxruntime"} <= set(measured["versions"])
    assert summary == json.loads((tmp_path / "out" / "ablate.json").read_text())
    assert summary["format_version"] == 2
    steps = summary["steps"]
    assert len(steps) == 5
    assert all(len(step["runs_s"]) == 2 for step in steps)
    first, second, last = steps[0], steps[1], steps[-1]
    assert [step["cumulative"] for step in steps] == pytest.approx(
        [first["seconds"] / step["seconds"] for step in steps]
    )
    assert summary["speedup"] == last["cumulative"]
    assert summary["speedup_unpadded"] == pytest.approx(second["seconds"] / last["seconds"])
    usd_per_hour = (
        0.677 * min(8, discover_topology().num_usable_cores) / 8
    )  # the part that was used
    assert last["usd_per_100m"] == pytest.approx(last["seconds"] / 3600 * usd_per_hour / 12 * 1e8)
    assert 0 <= last["accuracy"] <= 1
    assert (summary["rows"], summary["usd_per_hour"]) == (12, pytest.approx(usd_per_hour))

    page = (tmp_path / "out" / "table.md").read_text()
    assert page.count("\n| ") == 2 + 5
    assert page.count(", scaled from 5 of 12 texts [") == 2
    assert "Standard_F16s_v2" in page
    assert str(tmp_path) not in page
    assert (tmp_path / "out" / "ablate.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "out" / "ablate.svg").read_text()
    assert not list((tmp_path / "out").glob(".*"))
    shown = " ".join(err)
    assert "cannot be trusted" not in shown
    for step in steps:
        assert step["name"] in shown
        assert step["note"] in shown


def test_a_busy_machine_and_an_estimated_price_are_said_to_be_such(
    ablate, teacher, eval_file, monkeypatch
):
    monkeypatch.setattr("os.getloadavg", lambda: (1e3, 0.0, 0.0))
    status, out, err = ablate("--teacher", teacher, "--eval", eval_file, "--repeats", 1)
    assert status == 0, err
    summary = json.loads(out)
    assert summary["price_is_estimate"]
    assert "--usd-per-hour" in summary["price"]
    assert any("estimate" in line for line in err)
    assert summary["load_before"] == 1e3
    assert any("the times below cannot be trusted" in line for line in err)


def test_a_whole_system_is_held_against_its_model_out_of_the_box(
    ablate, teacher, eval_file, bundle, tmp_path, hub
):
    hub.add("org/teacher", teacher)
    status, out, err = ablate(
        *("--paper-table", 4, "--teacher", "org/teacher", "--bundle", bundle.path),
        *("--eval", eval_file, "--repeats", 2),
    )
    assert status == 0, err
    row = json.loads(out)
    row.pop("measured")
    assert row == json.loads((tmp_path / "out" / "system.json").read_text())
    theirs, ours = row["out_of_the_box"], row["bundle"]
    assert (row["task"], row["metric"], row["rows"]) == ("eval", "accuracy", 12)
    assert theirs["name"] == "org/teacher"  # and not the commit's directory in the hub's cache
    assert [len(side["runs"]) for side in (theirs, ours)] == [2, 2]
    assert 0 <= row["agreement"] <= 1
    assert {side["quality"] for side in (theirs, ours)} <= {0.0, 0.5, 1.0}
    low, high = row["speedup_range"]
    assert low <= row["speedup"] <= high
    assert row["speedup_standard_error"] is None  # all texts fit into one batch
    assert row["energy_ratio"] > 0
    assert row["energy_source"].startswith(("measured", "assumed", "unknown"))
    shown = "\n".join(err)
    assert f"speed-up {row['speedup']:,.1f}x" in shown
    assert row["energy_source"] in shown.replace("\n", " ")


def test_shapes_only_says_so_everywhere(ablate, monkeypatch, tmp_path):
    from fastformers.benchmark.encoder_shapes import EncoderShape

    shape = EncoderShape(
        num_layers=1,
        width=16,
        num_heads=2,
        head_width=8,
        ffn_width=32,
        activation="relu",
        vocab_size=64,
    )
    tiny = replace(BERT_BASE_SHAPES, teacher=shape, student=shape, smaller=())
    monkeypatch.setitem(ABLATION_SHAPES, "bert-base", tiny)
    status, out, err = ablate(
        *("--shapes-only", "bert-base", "--limit", 6, "--baseline-rows", 2),
        *("--max-length", 24, "--repeats", 1, "--usd-per-hour", 1),
    )
    assert status == 0, err
    summary = json.loads(out)
    assert [step["accuracy"] for step in summary["steps"]] == [None] * 5
    assert all("random weights, speed only" in step["note"] for step in summary["steps"])
    assert summary["speedup_with_tokenization"] is None
    page = (tmp_path / "out" / "table.md").read_text()
    assert page.startswith("# Ablation: shapes of bert-base, random weights (speed only)")
    assert page.count(", scaled from 2 of 6 texts [") == 2


def test_an_official_file_is_read_as_compress_reads_it(ablate, save_teacher, tmp_path):
    labels = ("entailment", "not_entailment")
    teacher = save_teacher(tmp_path / "teacher", labels)
    row = {"premise": "the cat sat", "hypothesis": "a dog ran", "label": "entailment"}
    path = tmp_path / "val.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(8)))
    status, out, err = ablate(
        *("--teacher", teacher, "--eval", path, "--superglue", "RTE", "--repeats", 1)
    )
    assert status == 0, err
    # One text, eight times: all right or all wrong.
    assert {step["accuracy"] for step in json.loads(out)["steps"]} in ({0.0}, {1.0})


def test_the_command_line_offers_every_set_of_shapes(ablate, monkeypatch, capsys):
    monkeypatch.setitem(ABLATION_SHAPES, "bert-huge", BERT_BASE_SHAPES)
    assert parse(["--output", "o", "--shapes-only", "bert-huge"]).shapes_only == "bert-huge"
    _, _, err = ablate("--eval", "e.csv")
    assert "or --shapes-only bert-base or bert-huge" in err[-1]
    with pytest.raises(SystemExit):
        parse(["--output", "o", "--shapes-only", "bert-tiny"])
    assert "bert-base, bert-huge" in capsys.readouterr().err.replace("'", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--eval EVAL", "--teacher is missing"),
        ("--teacher TEACHER", "--eval is missing"),
        ("--teacher TEACHER --eval none.parquet", "none.parquet: no such file"),
        ("--teacher none --eval EVAL", "none: no config.json"),
        ("--teacher TEACHER --eval EVAL --label-column truth", "no column 'truth'"),
        ("--teacher TEACHER --eval EVAL --bundle none", "none: not a bundle"),
        ("--teacher TEACHER --eval EVAL --student none", "none: no config.json"),
        ("--teacher TEACHER --eval EVAL --repeats 0", "--repeats 0: give at least 1"),
        ("--teacher TEACHER --eval EVAL --limit 0", "--limit 0: give at least 1"),
        ("--teacher TEACHER --eval EVAL --tokenizer x", "it is for --shapes-only"),
        ("--teacher TEACHER --eval EVAL --instance-type c7i.4xlage", "did you mean c7i.4xlarge"),
        ("--teacher TEACHER --eval EVAL --usd-per-hour 0", "--usd-per-hour must be above 0"),
        ("--paper-table 4 --teacher TEACHER --eval EVAL", "--paper-table 4 is of one --bundle"),
        ("--shapes-only bert-base --teacher TEACHER", "leave out --teacher, --student and"),
        ("--shapes-only bert-base --tokenizer x", "it reads the texts of --eval"),
        ("--shapes-only bert-base --max-length 600", "bert-base has 512 positions"),
        ("--shapes-only bert-base --keep-tokens 0.5,x", "--keep-tokens x: give shares above 0"),
        ("--shapes-only bert-base --keep-tokens auto", "auto: is for compress; give shares"),
        (
            "--shapes-only bert-base --keep-tokens 1,1,1,.5",
            "--keep-tokens 1,1,1,0.5: of the 4 layers of bert-base's student, 3 may drop tokens",
        ),
    ],
)
def test_bad_input_gets_one_line(ablate, teacher, eval_file, options, message):
    paths = {"TEACHER": str(teacher), "EVAL": str(eval_file)}
    status, out, err = ablate(*(paths.get(word, word) for word in options.split()))
    assert (status, out) == (2, "")
    assert err[-1].startswith("error: ")
    assert message in err[-1]


def test_an_output_that_is_a_file_is_refused(ablate, teacher, eval_file):
    status, _, err = ablate("--teacher", teacher, "--eval", eval_file, output=eval_file)
    assert status == 2
    assert "eval.parquet: is not a directory" in err[-1]
