"""`fastformers score --audit` without Ray: bill, report, page and gate, from Python, too."""

import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet
import pytest

import fastformers
from fastformers.errors import AuditError
from fastformers.jobs.console.cli import main

WORDS = ["a cat", "the film", "a dog ran fast", "good", "bad film", "the mat", "it sat", "slow"]
TEXTS = [f"{word} {number}" for number in range(40) for word in WORDS]
HOLDS_LISTS = "column 'y' holds lists, and the model gives one label for each row"


@pytest.fixture(scope="module")
def auditor(bundle_factory, tmp_path_factory):
    return bundle_factory(tmp_path_factory.mktemp("auditor") / "bundle", num_layers=1)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.parquet"
    labels = ["yes", "no"] * (len(TEXTS) // 2)
    pyarrow.parquet.write_table(pa.table({"text": TEXTS, "y": labels}), path)
    return path


@pytest.fixture
def score(capsys, without_ray, corpus, bundle, auditor, tmp_path):
    """Runs `fastformers score` with an audit; its status, its last line, and what it said."""

    def run(*options):
        places = ["--bundle", bundle.path, "--output", tmp_path / "out"]
        audit = ["--audit-bundle", auditor.path, "--audit", "0.5"]
        status = main(list(map(str, ["score", corpus, *places, *audit, *options])))
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return run


def test_the_bill_says_agreement_with_its_interval_and_cost(score, auditor, tmp_path):
    status, out, said = score("--label-column", "y", "--usd-per-hour", "1")
    assert status == 0, said
    audit = json.loads(out)["audit"]
    assert 120 < audit["rows"] < 200
    agreement = audit["agreement"]
    assert agreement["low"] < agreement["value"] < agreement["high"]
    assert (audit["bundle"], audit["share"], audit["failed_rows"]) == (str(auditor.path), 0.5, 0)
    assert audit["quality"]["rows"] == audit["rows"]
    report = json.loads((tmp_path / "out" / "__run__" / "report.json").read_text())
    assert report["audit"] == audit
    items = {item["heading"]: item for item in report["bill"]["items"]}
    assert items["audit"]["usd"] == audit["usd"] > 0
    assert items["audit"]["core_s"] == audit["core_s"] > 0
    text = "\n".join(said)
    shown = f"{100 * agreement['value']:.2f}% equal labels (95%: {100 * agreement['low']:.2f} to"
    assert shown in text
    assert "% here, " in text and " points" in text
    page = (tmp_path / "out" / "__run__" / "report.html").read_text()
    assert "<h2>Audit</h2>" in page
    assert f"{100 * agreement['value']:.2f}% equal labels" in page


def test_too_low_an_agreement_is_status_1_and_one_line_and_nothing_is_lost(score, tmp_path):
    status, out, said = score()
    assert status == 0
    value = 100 * json.loads(out)["audit"]["agreement"]["value"]
    for _ in range(2):  # the run is finished: its report is shown, and judged again
        status, out, said = score("--audit-min-agreement", f"{value + 15:.1f}")
        assert (status, out) == (1, "")
        assert said[-1].startswith(f"error: {value:.2f}% equal labels (95%: ")
        assert said[-1].endswith(f"; the predictions are kept in {tmp_path / 'out'}")
    assert score("--audit-min-agreement", f"{value:.1f}")[0] == 0
    parts = (tmp_path / "out" / "predictions").iterdir()
    assert sum(pyarrow.parquet.read_table(part).num_rows for part in parts) == len(TEXTS)


def test_it_is_a_keyword_of_the_function_and_a_bundle_may_be_given(
    score, corpus, bundle, auditor, tmp_path
):
    options = {"audit": 0.25, "audit_bundle": auditor, "quiet": True}
    report = fastformers.score(corpus, bundle=bundle, output=tmp_path / "out", **options)
    assert report.audit.bundle == str(auditor.path)
    assert 40 < report.audit.rows < 120
    with pytest.raises(AuditError, match="below --audit-min-agreement 100; the predictions are"):
        fastformers.score(
            corpus, bundle=bundle, output=tmp_path / "out", audit_min_agreement=100, **options
        )


def test_a_dry_run_says_what_the_audit_adds(score, auditor):
    status, out, said = score("--dry-run")
    assert status == 0
    line = f"50% of the rows by {auditor.path} (float32), about 50% on top of the model's"
    assert json.loads(out)["audit"].startswith(line)
    assert any(shown.startswith(f"audit: {line}") for shown in said)


def test_an_audit_bundle_of_another_task_is_refused_before_anything_is_written(
    score, bundle_factory, tmp_path
):
    other = bundle_factory(tmp_path / "other", task="regression", labels=(), num_outputs=1)
    status, out, said = score("--audit-bundle", other.path)
    assert (status, out) == (2, "")
    assert said[-1].startswith(f"error: --audit-bundle {other.path}: is of the task regression, ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "unknown"),
    [
        ([Decimal(1), Decimal(0)], None),
        ([b"yes", b"no"], None),
        ([["yes"], ["no"]], HOLDS_LISTS),
        ([{"a": 1}, {"a": 2}], HOLDS_LISTS),
    ],
)
def test_labels_of_any_type_are_judged_when_all_is_scored(score, corpus, labels, unknown):
    column = pa.array(labels * (len(TEXTS) // 2))
    pyarrow.parquet.write_table(pa.table({"text": TEXTS, "y": column}), corpus)
    status, out, said = score("--label-column", "y")
    assert status == 0, said
    quality, audit = (json.loads(out)[name] for name in ("quality", "audit"))
    assert (quality is None) == (audit["quality"] is None) == (unknown is not None)
    assert audit["quality_unknown"] == unknown


def test_labels_are_read_as_those_of_the_whole_corpus(
    capsys, without_ray, bundle_factory, corpus, tmp_path
):
    """Label 0 is in three rows of 320: the 15 drawn alone could count from 0 or from 1."""
    names = tuple(f"LABEL_{number}" for number in range(5))
    own, other = (
        bundle_factory(tmp_path / f"{layers}", labels=names, num_layers=layers) for layers in (2, 1)
    )
    labels = [0, 0, 0, *(1 + number % 4 for number in range(len(TEXTS) - 3))]
    pyarrow.parquet.write_table(pa.table({"text": TEXTS, "y": labels}), corpus)
    flags = ["--audit", "0.05", "--audit-bundle", other.path, "--label-column", "y"]
    places = [corpus, "--bundle", own.path, "--output", tmp_path / "out"]
    assert main(list(map(str, ["score", *places, *flags]))) == 0
    last = json.loads(capsys.readouterr().out)
    assert last["quality"]["rows"] == len(TEXTS)
    assert last["audit"]["quality"]["rows"] == last["audit"]["rows"] > 5
    assert last["audit"]["quality_unknown"] is None
