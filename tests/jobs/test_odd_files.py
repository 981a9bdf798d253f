"""Corpora as people have them, through the real command: every row of them is accounted for.

The worker is in this process, where the command would start Ray: what is read, scored and written
is the same.
"""

import json
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest

import jobs.console.execute
import jobs.score
from cluster.execution.local import connect_here
from fastformers import Scorer
from jobs.console.cli import main
from tests.jobs.odd.corpus import Bad
from tests.jobs.odd.directories import DIRECTORIES
from tests.jobs.odd.parquet_files import PARQUET_FILES
from tests.jobs.odd.text_files import CSV_FILES, JSON_FILES

KINDS = {
    "CSV": CSV_FILES,
    "JSON": JSON_FILES,
    "Parquet": PARQUET_FILES,
    "directory": DIRECTORIES,
}
CASES = {f"{kind}: {name}": case for kind, cases in KINDS.items() for name, case in cases.items()}


@pytest.fixture
def score(monkeypatch, capsys, caplog, bundle):
    """Runs `fastformers score` with a worker in this process; its status, JSON and lines."""
    monkeypatch.setattr(jobs.console.execute, "connect_ray", connect_here)
    monkeypatch.setattr(jobs.console.execute, "_tell_metrics", lambda *arguments, **numbers: None)
    monkeypatch.setattr(jobs.score, "write_page", lambda *arguments: None)
    pool = pa.default_memory_pool()  # a worker sets another one for its process

    def run(corpus, output, *flags):
        status = main(
            ["score", str(corpus), "--bundle", str(bundle.path), "--output", str(output), *flags]
        )
        captured = capsys.readouterr()
        return status, captured.out, [*caplog.messages, *captured.err.splitlines()]

    yield run
    pa.set_memory_pool(pool)


@pytest.fixture(scope="session")
def scorer(bundle):
    return Scorer(bundle.path)


def read_predictions(output):
    parts = sorted(Path(output, "predictions").iterdir())
    for part in parts:
        pandas.read_parquet(part)
    tables = [pyarrow.parquet.read_table(part).replace_schema_metadata() for part in parts]
    for table in tables:
        table.validate(full=True)
    return pa.concat_tables(tables)


def check_accounts(case, output, scorer):
    """Each row has the prediction of its text or its dead letter, and what was kept of it."""
    table = read_predictions(output)
    letters = pyarrow.parquet.read_table(Path(output, "dead_letters.parquet")).to_pylist()
    assert table.num_rows == len(case.rows)
    bad = {row: text.reason for row, text in enumerate(case.rows) if isinstance(text, Bad)}
    assert [letter["corpus_row"] for letter in letters] == list(bad)
    for letter, reason in zip(letters, bad.values(), strict=True):
        assert reason in letter["error"]
    errors = table["error"].to_pylist()
    assert [row for row, error in enumerate(errors) if error is not None] == list(bad)
    good = [row for row in range(len(case.rows)) if row not in bad]
    expected = scorer.score([case.rows[row] for row in good])
    labels = table["label"].to_pylist()
    assert [labels[row] for row in good] == list(expected.labels)
    assert {labels[row] for row in bad} <= {None}
    probabilities = table["probability"].to_pylist()
    assert [probabilities[row] for row in good] == pytest.approx(expected.probabilities, abs=1e-5)
    for name, values in case.kept.items():
        assert repr(table[name].to_pylist()) == repr(values)


@pytest.mark.parametrize("name", CASES)
def test_every_row_is_accounted_for_or_the_corpus_is_refused_in_one_line(
    name, score, scorer, tmp_path
):
    case = CASES[name]
    corpus = case.write(tmp_path / "corpus")
    flags = ["--max-bad-rows", "99%", *case.flags]
    for column in case.kept:
        flags += ["--keep-columns", column]
    status, out, lines = score(corpus, tmp_path / "out", *flags)
    errors = [line for line in lines if line.startswith("error: ")]
    assert "Traceback" not in " ".join(lines)
    if case.refused is not None:
        assert (status, out) == (2, "")
        assert errors == lines[-1:]
        assert case.refused in errors[0]
    else:
        assert (status, errors) == (0, []), lines
        summary = json.loads(out)
        assert summary["rows"] == len(case.rows)
        report = json.loads(Path(tmp_path, "out", "report.json").read_text())
        assert report["unfit_values"] == case.unfit
    if case.said is not None:
        assert case.said in " ".join(lines)
    if case.rows:
        check_accounts(case, tmp_path / "out", scorer)
    else:
        assert not list(tmp_path.glob("out/predictions/*"))
