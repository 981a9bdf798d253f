"""The commands as functions: the same keywords as flags, the same values, refusals and results."""

import argparse
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import numpy as np
import pytest

import fastformers
import fastformers.compression
from fastformers.cluster.report.run_report import RunReport
from fastformers.cluster.storage.options import StorageOptions
from fastformers.compression.compress_config import CompressConfig
from fastformers.compression.recipe_config import PruneConfig, StudentConfig
from fastformers.errors import InputError
from fastformers.jobs import compress, cost, score
from fastformers.jobs.console.cli import main
from fastformers.jobs.console.command_line.keywords import (
    CompressKeywords,
    CostKeywords,
    ScoreKeywords,
)
from fastformers.jobs.console.command_line.python_call import NO_KEYWORDS, called
from fastformers.jobs.console.flags import read_config
from fastformers.jobs.console.output import console

FUNCTIONS = [
    (fastformers.score, score, ScoreKeywords),
    (fastformers.compress, compress, CompressKeywords),
    (fastformers.estimate_cost, cost, CostKeywords),
]
PLACES = {
    score: (["c", "--bundle", "b", "--output", "o"], {"corpus": "c", "bundle": "b", "output": "o"}),
    cost: (["c", "--bundle", "b"], {"corpus": "c", "bundle": ["b"]}),
    compress: (
        ["--teacher", "t", "--train", "a", "--eval", "e", "--output", "o"],
        {"teacher": "t", "train": "a", "eval": "e", "output": "o"},
    ),
}


@pytest.mark.parametrize(("function", "command", "keywords"), FUNCTIONS)
def test_every_flag_is_a_typed_keyword_with_its_default(function, command, keywords):
    """A new flag needs a line in keywords.py, or in NO_KEYWORDS if it means nothing to Python."""
    words, places = PLACES[command]
    options = vars(command.parse(words))
    flags = options.keys() - NO_KEYWORDS - {"given", "settings", "words"}
    hints = get_type_hints(keywords)
    assert set(hints) == flags - set(places)
    parameters = inspect.signature(function).parameters
    assert set(parameters) == flags
    for name in hints:
        assert parameters[name].default == options[name]
        assert f"{name}: " in function.__doc__
        if isinstance(options[name], bool):
            assert hints[name] is bool


@pytest.mark.parametrize(
    ("command", "words", "values"),
    [
        (
            score,
            "--limit 5 --keep-columns a,b --keep-columns c --oversubscribe --num-actors 2 "
            "--cores-per-actor auto --on-bad-row fail --usd-per-hour 2 --engine auto",
            {
                "limit": np.int64(5),
                "keep_columns": ["a,b", "c"],
                "oversubscribe": True,
                "num_actors": 2,
                "cores_per_actor": "auto",
                "on_bad_row": "fail",
                "usd_per_hour": 2,
                "engine": "auto",
                "label_column": None,
            },
        ),
        (
            cost,
            "--deadline 1h30m --rows 1e9 --prices p.csv --spot --sample 0.5",
            {"deadline": 5400, "rows": 10**9, "prices": "p.csv", "spot": True, "sample": 0.5},
        ),
        (cost, "--deadline 2d --rows 5", {"deadline": "2d", "rows": "5"}),
        (
            compress,
            "--student s --student-layers 4 --prune-heads 0.33 --precision float32 --search "
            "--keep-tokens 1 --keep-tokens 0.6",
            {
                "keep_tokens": [1, np.float64(0.6)],
                "student": Path("s"),
                "student_layers": 4,
                "prune_heads": 0.33,
                "precision": "float32",
                "search": True,
            },
        ),
    ],
)
def test_values_become_what_words_become(command, words, values):
    places, named = PLACES[command]
    expected = vars(command.parse([*places, *words.split()]))
    found = vars(command.make_parser().take({**named, **values}))
    del expected["words"]  # how a command line was spelled is no value
    expected["bundle"] = found["bundle"] = [*expected.get("bundle", ())]
    assert found == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limit": "5"}, "--limit '5': give a whole number"),
        ({"limit": 2.5}, "--limit 2.5: give a whole number"),
        ({"limit": True}, "--limit True: give a whole number"),
        ({"oversubscribe": 1}, "--oversubscribe 1: give True or False"),
        ({"usd_per_hour": "2"}, "--usd-per-hour '2': give a number"),
        ({"text_column": None}, "--text-column None: give a text"),
        ({"keep_columns": 5}, "--keep-columns 5: give a list of names"),
        ({"keep_columns": ["a", 5]}, r"--keep-columns \['a', 5\]: give a list of names"),
        ({"keep_columns": None}, "--keep-columns None: give a list of names"),
        ({"on_bad_row": "ignore"}, "--on-bad-row 'ignore': give one of dead-letter, fail"),
        ({"engine": "jax"}, "--engine 'jax': give one of onnxruntime, openvino, auto"),
        ({"cores_per_actor": "all"}, "--cores-per-actor: 'all' is neither a number nor auto"),
        ({"cores_per_actor": 1.5}, "--cores-per-actor 1.5: give a whole number or None"),
        ({"storage_options": {"regoin": "x"}}, "--storage-options: no key 'regoin'"),
        ({"storage_options": 5}, "--storage-options 5: give StorageOptions"),
        ({"corpus": 5}, "corpus 5: give a text"),
    ],
)
def test_a_value_of_another_type_is_one_line_that_names_the_flag(values, message):
    with pytest.raises(InputError, match=message) as error:
        fastformers.score(**{"corpus": "c", "bundle": "b", "output": "o", **values})
    assert "\n" not in str(error.value)


def test_options_of_storage_are_a_mapping_or_the_value_itself():
    given = StorageOptions({"region": "eu-west-1"})
    for value in (given, {"region": "eu-west-1"}):
        options = score.make_parser().take({**PLACES[score][1], "storage_options": value})
        assert options.storage_options == given
        assert "storage_options" not in options.settings


@pytest.mark.parametrize("name", ["text_colum", "dry_run", "help", "config", "given"])
def test_another_keyword_is_a_type_error(name):
    hint = "; did you mean text_column?" if name == "text_colum" else ""
    with pytest.raises(TypeError, match=f"unexpected keyword argument {name!r}{hint}"):
        fastformers.score("c", bundle="b", output="o", **{name: "x"})


def test_flags_that_exclude_each_other_and_idle_ones_are_refused(corpus, bundle):
    with pytest.raises(InputError, match="--spot and --reserved: give one of them"):
        fastformers.estimate_cost(corpus, bundle=bundle, spot=True, reserved=True)
    with pytest.raises(InputError, match="--startup-s does nothing here: no cluster is planned"):
        fastformers.estimate_cost(corpus, bundle=bundle, startup_s=10)


@pytest.fixture
def corpus(tmp_path, write_rows):
    rows = [{"id": row, "text": text} for row, text in enumerate(["a cat", "good film", ""] * 200)]
    return write_rows(tmp_path / "corpus.jsonl", rows)


def test_score_is_the_command(score, corpus, bundle, tmp_path):
    """The fixture `score` runs the command here, and makes workers of this process."""
    status, out, _ = score(corpus, tmp_path / "a", "--max-bad-rows", "50%", "--usd-per-hour", "1")
    assert status == 0
    report = fastformers.score(
        corpus, bundle=bundle, output=tmp_path / "b", max_bad_rows="50%", usd_per_hour=1
    )
    assert isinstance(report, RunReport)
    assert report.rows == 600
    expected, found = json.loads(out), report.summarize()
    for name in ("rows", "unique_rows", "tokens", "dead_letters", "shards", "usd_per_hour"):
        assert found[name] == expected[name]
    names = [
        {str(path.relative_to(tmp_path / place)) for path in (tmp_path / place).rglob("part-*")}
        for place in "ab"
    ]
    assert names[0] == names[1] != set()


def test_quiet_shows_nothing_and_lasts_for_the_call_alone(score, corpus, bundle, tmp_path, capsys):
    arguments = {"bundle": str(bundle.path), "max_bad_rows": "50%"}
    fastformers.score(corpus, output=tmp_path / "a", quiet=True, **arguments)
    assert capsys.readouterr() == ("", "")
    assert not console.quiet
    fastformers.score(corpus, output=tmp_path / "b", **arguments)
    shown = capsys.readouterr()
    assert shown.err and not shown.out


def test_an_estimate_is_the_command_s(corpus, bundle, capsys):
    flags = ["--max-bad-rows", "50%", "--rows", "1e9", "--deadline", "6h"]
    assert main(["cost", str(corpus), "--bundle", str(bundle.path), *flags]) == 0
    expected = json.loads(capsys.readouterr().out.splitlines()[-1])
    cost = fastformers.estimate_cost(
        corpus, bundle=bundle, max_bad_rows="50%", rows=10**9, deadline="6h"
    )
    assert capsys.readouterr().out == ""
    cheapest = cost.instances.costs[0]
    assert cheapest.price.instance_type == expected["instances"][0]["instance_type"]
    assert cheapest.usd_total == expected["instances"][0]["usd_total"]
    assert cost.plans[0].usd_total == expected["plan"]["usd_total"]
    assert fastformers.estimate_cost(corpus, bundle=bundle, max_bad_rows="50%").plans == ()


def test_compress_gets_the_config_that_flags_make(tmp_path, monkeypatch):
    """Compressing itself takes PyTorch and minutes, and is tested elsewhere."""
    seen = []
    offline = ModuleType("fastformers.compression.compress")
    offline.compress = lambda config, files, **calls: seen.append((config, files, calls)) or "done"
    monkeypatch.setitem(sys.modules, offline.__name__, offline)
    monkeypatch.setattr(fastformers.compression, "compress", offline, raising=False)
    for name in ("train", "eval"):
        rows = [f"text {row},{'yes' if row % 2 else 'no'}" for row in range(20)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text('{"model_type": "bert"}')
    places = {
        "teacher": tmp_path / "teacher",
        "train": tmp_path / "train.csv",
        "eval": tmp_path / "eval.csv",
        "output": tmp_path / "bundle",
    }
    given = {"student_layers": 4, "prune_heads": 0.33}
    assert fastformers.compress(**{name: str(path) for name, path in places.items()}, **given)
    (config, files, calls) = seen[0]
    assert config == CompressConfig(
        **places,
        recipe=fastformers.compression.recipe_config.RecipeConfig(
            student=StudentConfig(student_layers=4), prune=PruneConfig(prune_heads=0.33)
        ),
    )
    words = [word for name, path in places.items() for word in (f"--{name}", str(path))]
    options = compress.parse([*words, "--student-layers", "4", "--prune-heads", "0.33"])
    assert read_config(CompressConfig, options) == config
    assert len(files.split.train) == 20
    assert set(calls) == {
        *("on_labels", "on_stage", "on_candidate", "on_plan", "on_point", "on_progress")
    }


def test_a_package_that_is_missing_is_one_line_with_what_brings_it():
    options = argparse.Namespace(quiet=False)
    with pytest.raises(InputError, match=r"torch is not installed: .*pip install"), called(options):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    with pytest.raises(ModuleNotFoundError), called(options):
        raise ModuleNotFoundError("No module named 'mine'", name="mine")


SNIPPET = """
import fastformers

report = fastformers.score("corpus/", bundle="bundle/", output="out/", text_column="body", limit=5)
rows: int = report.rows
fastformers.score("corpus/", bundle="bundle/", output="out/", limit="five")
fastformers.score("corpus/", bundle="bundle/", output="out/", text_colum="body")
compressed = fastformers.compress(teacher="t", train="a", eval="b", output="c", student_layers=4)
path: str = compressed.bundle.path
cost = fastformers.estimate_cost("corpus/", bundle=compressed.bundle, deadline="6h")
usd: str = cost.instances.costs[0].usd_total
with fastformers.Scorer("bundle/", engine="openvino") as scorer:
    predictions = scorer.score(["a text"])
for best in predictions.top_k(3):
    label: int = best[0]
"""
# Line of the snippet and what a checker says there.
WRONG = {
    6: 'Argument "limit" to "score" has incompatible type "str"; expected "int | None"',
    7: 'Unexpected keyword argument "text_colum" for "score"',
    9: 'expression has type "Path", variable has type "str"',
    11: 'expression has type "float", variable has type "str"',
    15: 'expression has type "dict[str, Any]", variable has type "int"',
}


def test_a_type_checker_sees_the_types(tmp_path, monkeypatch):
    """Where `make types` has run, mypy knows the package, and looks at the snippet alone."""
    mypy_api = pytest.importorskip("mypy.api", reason="mypy is not installed")

    monkeypatch.chdir(Path(fastformers.__file__).parent.parent)
    (tmp_path / "user.py").write_text(SNIPPET)
    out, err, _ = mypy_api.run([str(tmp_path / "user.py")])
    errors = [line for line in out.splitlines() if ": error:" in line and "user.py" in line]
    found = {int(line.split(":")[1]): line for line in errors}
    assert found.keys() == WRONG.keys(), out + err
    for line, message in WRONG.items():
        assert message in found[line]
