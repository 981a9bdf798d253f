"""Corpora as people have them, through the real command: every row of them is accounted for.

The worker is in this process, where the command would start Ray: what is read, scored and written
is the same.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.odd.accounts import check_accounts
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


@pytest.fixture(autouse=True)
def usual_recursion():
    """How deep JSON may be is Python's own limit, which PyTorch raises for its process."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(limit)


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
        report = json.loads(Path(tmp_path, "out", "__run__", "report.json").read_text())
        assert report["unfit_values"] == case.unfit
        again = score(corpus, tmp_path / "out", *flags)
        assert json.loads(again[1])["rows"] == len(case.rows)
    if case.said is not None:
        assert case.said in " ".join(lines)
    if case.rows:
        table = check_accounts(case.rows, tmp_path / "out", scorer)
        for column, values in case.kept.items():
            assert repr(table[column].to_pylist()) == repr(values)
    else:
        assert not list(tmp_path.glob("out/predictions/*"))


def write_together(cases, directory):
    """Files of cases that need no flags, as one corpus; the rows that it has, and their places."""
    directory.mkdir()
    rows, places = [], []
    alone = [case for case in cases.values() if len(case.files) == 1 and case.path is None]
    for number, case in enumerate(alone):
        if case.refused is None and case.said is None and not case.flags:
            [(name, content)] = case.files.items()
            path = directory / f"{number:03}-{name}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            rows += case.rows
            places += [(str(path), row) for row in range(len(case.rows))]
    return rows, places


def check_together(rows, places, output, scorer):
    table = check_accounts(rows, output, scorer)
    columns = (table["__file__"].to_pylist(), table["__row__"].to_pylist())
    assert list(zip(*columns, strict=True)) == places


FLAGS = ("--max-bad-rows", "99%", "--keep-columns", "id,__file__,__row__")


@pytest.mark.parametrize("kind", KINDS)
def test_odd_files_are_one_corpus(kind, score, scorer, tmp_path):
    rows, places = write_together(KINDS[kind], tmp_path / "corpus")
    status, _, lines = score(tmp_path / "corpus", tmp_path / "out", *FLAGS)
    assert status == 0, lines
    check_together(rows, places, tmp_path / "out", scorer)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("kind", ["CSV", "JSON", "Parquet"])
def test_odd_files_are_one_corpus_on_ray(kind, bundle, scorer, tmp_path):
    rows, places = write_together(KINDS[kind], tmp_path / "corpus")
    command = [
        sys.executable,
        "-m",
        "fastformers.jobs.console.cli",
        "score",
        str(tmp_path / "corpus"),
    ]
    paths = ("--bundle", str(bundle.path), "--output", str(tmp_path / "out"))
    done = subprocess.run([*command, *paths, *FLAGS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["rows"] == len(rows)
    check_together(rows, places, tmp_path / "out", scorer)
