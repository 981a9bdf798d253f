"""Corpora as people have them, through the real command: every row of them is accounted for.

The worker is in this process, where the command would start Ray: what is read, scored and written
is the same.
"""

import json
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
