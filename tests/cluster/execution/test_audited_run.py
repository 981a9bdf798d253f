"""Whole runs with an audit: the same predictions, counts that survive a crash, an early end."""

import json

import pyarrow.parquet
import pytest

import fastformers.cluster.corpus.slices
from fastformers import Scorer
from fastformers.cluster.execution.job import describe, open_prepare_job, open_score_job
from fastformers.cluster.execution.journal import find_earlier_work
from fastformers.cluster.settings import AuditSettings, CorpusSettings, PredictionSettings
from fastformers.cluster.shards import preparation
from fastformers.errors import AuditError, ChangedWorkError, InputError
from tests.cluster.outputs import read_predictions

WORDS = ["a cat", "the film", "a dog ran fast", "good", "bad film", "the mat", "it sat", "slow"]
TEXTS = [f"{WORDS[row % 8]} {row % 20}" if row != 33 else None for row in range(150)]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 900)
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", 900)


@pytest.fixture
def corpus(tmp_path, write_rows):
    rows = [{"text": text, "y": ("no", "yes")[row % 2]} for row, text in enumerate(TEXTS)]
    return write_rows(tmp_path / "corpus.jsonl", rows)


@pytest.fixture(scope="module")
def auditor(bundle_factory, tmp_path_factory):
    """Another model whose labels stand in another order."""
    path = tmp_path_factory.mktemp("auditor") / "bundle"
    return bundle_factory(path, num_layers=1, labels=("yes", "no"))


@pytest.fixture
def plan(corpus, bundle, auditor, tmp_path):
    """Opens a job: `plan(share, name of the output, ...)`; no share, no audit."""

    def plan(share=None, name="out", *, source=corpus, min_agreement=None, label_column=None):
        audit = AuditSettings(
            share=share,
            bundle=None if share is None else str(auditor.path),
            min_agreement_percent=min_agreement,
        )
        return open_score_job(
            str(source),
            bundle.path,
            str(tmp_path / name),
            CorpusSettings(shard_seconds=0.002 if source == corpus else None),
            max_batch_tokens=256,
            audit=audit,
            written=PredictionSettings(label_column=label_column),
        )

    return plan


def test_an_audit_of_all_rows_says_what_both_bundles_say(
    plan, bundle, auditor, tmp_path, run_locally, told
):
    result = run_locally(plan(1.0, label_column="y"))
    run_locally(plan(name="unaudited", label_column="y"))
    assert read_predictions(tmp_path / "out").equals(read_predictions(tmp_path / "unaudited"))

    own, theirs = (Scorer(one).score(TEXTS).labels for one in (bundle, auditor))
    good = [row for row in range(150) if row != 33]
    audit = result.tally.scored.audit
    assert (audit.num_rows, audit.num_failed) == (149, 0)
    assert audit.num_equal == sum(own[row] == theirs[row] for row in good)
    assert 0 < audit.num_equal < 149
    both = audit.auditors.pairs
    right = both['"no"'].get("0", 0) + both['"yes"'].get("1", 0)
    assert right == sum(theirs[row] == ("no", "yes")[row % 2] for row in good)


def test_receipts_say_what_the_audit_took(plan, run_locally, told):
    result = run_locally(plan(0.5))
    receipts = list(told.receipts)
    assert len(receipts) > 3
    assert all({"read", "infer", "audit", "write"} == set(r.phase_s) for r in receipts)
    assert sum(receipt.phase_s["audit"] for receipt in receipts) > 0
    seconds = {key: sum(a.seconds.values()) for key, a in result.tally.actors.items()}
    spent = [actor.seconds["audit"] for actor in result.tally.actors.values()]
    assert 0 < sum(spent) < sum(seconds.values())
    assert 40 < result.tally.scored.audit.num_rows < 110


@pytest.mark.parametrize("num_writes", [4, 9, 15])
def test_a_run_that_was_killed_has_the_same_audit(plan, run_locally, killed_after, num_writes):
    """Whatever was scored before and after, and in whatever order, the sums are equal."""
    run_locally(plan(0.3, "whole", label_column="y"))
    with killed_after(num_writes):
        run_locally(plan(0.3, label_column="y"))
    run_locally(plan(0.3, label_column="y"))
    found, whole = (
        find_earlier_work(plan(0.3, name, label_column="y")).receipts.audit
        for name in ("out", "whole")
    )
    assert found == whole
    assert 20 < found.num_rows < 75


def test_prepared_shards_are_audited_alike(plan, corpus, bundle, tmp_path, run_locally):
    settings = CorpusSettings(shard_seconds=0.002)
    shards = tmp_path / "shards"
    run_locally(open_prepare_job(str(corpus), bundle.path, str(shards), settings))
    first = run_locally(plan(0.3, source=shards)).tally.scored.audit
    assert first == run_locally(plan(0.3, "direct")).tally.scored.audit


def test_an_audit_is_part_of_the_work_and_the_least_agreement_is_not(plan, run_locally):
    run_locally(plan(0.3))
    for share in (None, 0.2):
        with pytest.raises(ChangedWorkError, match="of another run: audit changed since;"):
            run_locally(plan(share))
    assert run_locally(plan(0.3, min_agreement=1)).tally.scored.num_shards == 0
    run_locally(plan(name="unaudited"))
    with pytest.raises(ChangedWorkError, match="of another run: audit changed since;"):
        run_locally(plan(0.3, "unaudited"))


def test_a_run_from_before_audits_goes_on(plan, tmp_path, run_locally):
    """Its record says nothing of audits, and neither do the receipts of its shards."""
    run_locally(plan())
    path = tmp_path / "out" / "__run__" / "run.json"
    record = json.loads(path.read_text())
    del record["identity"]["audit"]
    path.write_text(json.dumps(record))
    for part in (tmp_path / "out" / "predictions").iterdir():
        table = pyarrow.parquet.read_table(part)
        receipt = json.loads(table.schema.metadata[b"fastformers"])
        del receipt["audit"]
        kept = {b"fastformers": json.dumps(receipt).encode()}
        pyarrow.parquet.write_table(table.replace_schema_metadata(kept), part)
    for log in (tmp_path / "out" / "__run__" / "receipts").iterdir():
        log.unlink()
    again = run_locally(plan())
    assert (again.tally.scored.num_shards, again.tally.earlier.num_rows) == (0, 150)


def test_a_hopeless_run_ends_early_and_goes_on_with_a_lower_floor(plan, tmp_path, run_locally):
    for _ in range(2):  # and the same command ends in the same way
        with pytest.raises(AuditError, match=r"rows audited so far by .* far below"):
            run_locally(plan(1.0, min_agreement=99))
    done = find_earlier_work(plan(1.0)).receipts
    assert 0 < done.num_rows < 150
    result = run_locally(plan(1.0, min_agreement=10))
    assert result.tally.earlier.num_rows == done.num_rows
    assert read_predictions(tmp_path / "out").num_rows == 150


def test_another_bundle_is_refused_before_the_corpus_is_read(
    plan, bundle, pair_bundle, monkeypatch, tmp_path
):
    monkeypatch.setattr(
        "fastformers.cluster.execution.job.open_corpus_for", lambda *_, **__: pytest.fail("read")
    )
    audit = AuditSettings(share=0.1, bundle=str(pair_bundle.path))
    with pytest.raises(InputError, match=r"^--audit-bundle .* reads pairs of texts, "):
        open_score_job(
            "corpus",
            bundle.path,
            str(tmp_path / "out"),
            CorpusSettings(),
            max_batch_tokens=256,
            audit=audit,
        )


def test_a_plan_says_what_the_audit_adds(plan, auditor):
    job = plan(0.05)
    shown = describe(job, find_earlier_work(job))
    assert shown["audit"] == (
        f"5% of the rows by {auditor.path} (float32), about 5% on top of the model's "
        "core-seconds by the cost profiles"
    )
    assert "audit" not in describe(plan(), find_earlier_work(plan()))
