import dataclasses
import json
import re

import pytest

import fastformers.cluster.corpus.slices
import fastformers.cluster.devices.scoring
from fastformers.cluster.devices.scoring import CARD_BATCH_TOKENS
from fastformers.cluster.execution.job import describe, open_prepare_job, open_score_job
from fastformers.cluster.execution.journal import find_earlier_work
from fastformers.cluster.records.slice_table import load_shards
from fastformers.cluster.settings import CorpusSettings, PredictionSettings, ScoringSettings
from fastformers.cluster.shards.layout import MIN_GPU_SHARD_TOKENS
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import BundleError, ChangedWorkError, InputError
from fastformers.inference import engines
from fastformers.inference.autotune import EngineChoice
from fastformers.inference.bundle import write_manifest
from tests.cluster.execution.plans import plan, plan_shards
from tests.needs import need_openvino


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 300)


@pytest.fixture
def corpus(tmp_path, write_rows):
    rows = [{"id": row, "text": f"a cat {row}", "lang": "en"} for row in range(20)]
    for name in "abc":
        write_rows(tmp_path / "corpus" / f"{name}.jsonl", rows)
    return tmp_path / "corpus"


def test_a_token_budget_below_one_is_refused(corpus, bundle, tmp_path):
    with pytest.raises(InputError, match="--max-batch-tokens 0: give at least 1"):
        plan(corpus, bundle, tmp_path / "out", max_batch_tokens=0)


def test_text_columns_must_suit_the_bundle(corpus, bundle, pair_bundle, tmp_path):
    with pytest.raises(InputError, match="scores text pairs: give --text-pair-column"):
        plan(corpus, pair_bundle, tmp_path / "out")
    with pytest.raises(InputError, match="scores single texts: leave --text-pair-column out"):
        plan(corpus, bundle, tmp_path / "out", text_pair_column="lang")
    assert plan(corpus, pair_bundle, tmp_path / "out", text_pair_column="lang").corpus


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize(
    ("task", "taken", "free"),
    [
        ("text-classification", ("label", "probability", "error"), ("score", "labels")),
        ("multi-label-classification", ("labels", "probabilities", "error"), ("label",)),
        ("regression", ("score", "error"), ("label", "probability")),
        ("embedding", ("embedding", "error"), ("label", "score")),
    ],
)
def test_columns_of_the_predictions_cannot_be_kept(
    write_rows, bundle_factory, run_locally, tmp_path, task, taken, free, prepared
):
    columns = (*taken, *free)
    path = write_rows(tmp_path / "c.jsonl", [{"text": "a cat", **dict.fromkeys(columns, "x")}] * 9)
    bundle = bundle_factory(tmp_path / "bundle", task=task)
    if prepared:  # for a bundle of another task, with the same tokenizer
        other = bundle_factory(
            tmp_path / "other", task="regression" if task != "regression" else "embedding"
        )
        kept = tuple(name for name in columns if name not in ("score", "embedding", "error"))
        run_locally(plan_shards(path, other, tmp_path / "shards", keep_columns=kept))
        path, columns = tmp_path / "shards", kept
    for name in columns:
        if name in taken:
            with pytest.raises(InputError, match=f"--keep-columns {name}: the predictions have"):
                plan(path, bundle, tmp_path / "out", keep_columns=(name,))
        else:
            assert plan(path, bundle, tmp_path / "out", keep_columns=(name,))


def test_labels_are_refused_where_predictions_have_none(corpus, bundle_factory, tmp_path):
    embeds = bundle_factory(tmp_path / "embeds", task="embedding")
    with pytest.raises(InputError, match=r"--label-column lang: predictions .*no labels; leave"):
        open_score_job(
            str(corpus),
            embeds.path,
            str(tmp_path / "out"),
            CorpusSettings(),
            max_batch_tokens=None,
            written=PredictionSettings(label_column="lang"),
        )


def test_what_may_take_long_is_told_as_it_begins(corpus, bundle, tmp_path):
    told = []
    places = (str(corpus), bundle.path, str(tmp_path / "out"), CorpusSettings())
    open_score_job(*places, max_batch_tokens=None, on_step=told.append)
    checking = f"checking the output {tmp_path}/out and reading the bundle {bundle.path}"
    listing = f"listing the corpus {corpus}"
    assert told == [checking, listing, "measuring which engine and batches are fastest here"]
    told.clear()
    open_prepare_job(*places, on_step=told.append)
    assert told == [checking, listing]


def test_a_missing_bundle_or_corpus_is_refused(corpus, bundle, tmp_path):
    with pytest.raises(BundleError, match="not a bundle"):
        open_score_job(
            str(corpus),
            tmp_path / "none",
            str(tmp_path / "out"),
            CorpusSettings(),
            max_batch_tokens=None,
        )
    with pytest.raises(InputError, match="no such file"):
        plan(tmp_path / "none", bundle, tmp_path / "out")


def describe_now(job):
    return describe(job, find_earlier_work(job))


def test_planning_and_describing_write_nothing(corpus, bundle, tmp_path):
    described = describe_now(plan(corpus, bundle, tmp_path / "out", limit=50))
    assert described["files"] == 3
    assert described["shards_done"] == 0
    assert described["slices"] > 1
    assert described["shard_seconds"] == 0.002
    assert described["output"] == str(tmp_path / "out")
    assert json.loads(json.dumps(described)) == described
    assert not (tmp_path / "out").exists()


def test_what_was_found_is_described(corpus, bundle, tmp_path, run_locally):
    run_locally(plan_shards(corpus, bundle, tmp_path / "shards"))
    job = plan(tmp_path / "shards", bundle, tmp_path / "out")
    num_shards = len(list((tmp_path / "shards").rglob("part-*")))
    before = describe_now(job)
    assert (before["shards"], before["shards_done"]) == (num_shards, 0)
    run_locally(job)
    (tmp_path / "out" / "predictions" / "part-000001-00000.parquet").unlink()
    after = describe_now(job)
    assert (after["shards"], after["shards_done"]) == (num_shards, num_shards - 1)


def test_a_job_is_a_value(corpus, bundle, tmp_path):
    job = plan(corpus, bundle, tmp_path / "out", max_batch_tokens=256)
    assert job == plan(corpus, bundle, tmp_path / "out", max_batch_tokens=256)
    assert job != plan(corpus, bundle, tmp_path / "out", max_batch_tokens=512)
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.engine = "openvino"


@pytest.mark.parametrize(("version", "age"), [({}, "an older"), ({"format_version": 5}, "a newer")])
def test_work_of_another_version_is_refused_before_it_is_looked_at(
    corpus, bundle, tmp_path, run_locally, version, age
):
    """Directories of versions that wrote no format version are refused, not read in part."""
    run_locally(plan_shards(corpus, bundle, tmp_path / "shards"))
    run_locally(plan(corpus, bundle, tmp_path / "out"))
    for path in (tmp_path / "shards" / "prepared.json", tmp_path / "out" / "__run__" / "run.json"):
        record = json.loads(path.read_text())
        assert record.pop("format_version") == 4
        path.write_text(json.dumps({**version, **record}))
    shards, out = re.escape(str(tmp_path / "shards")), re.escape(str(tmp_path / "out"))
    advice = f"written by {age} version of fastformers .*; choose another directory, or delete"
    with pytest.raises(ChangedWorkError, match=f"^--output {out}: run.json was {advice}"):
        plan(corpus, bundle, tmp_path / "out", engine="auto")
    with pytest.raises(ChangedWorkError, match=f"^{shards}: prepared.json was {advice}"):
        plan(tmp_path / "shards", bundle, tmp_path / "elsewhere")
    with pytest.raises(ChangedWorkError, match=f"^--output {shards}: prepared.json was {advice}"):
        run_locally(plan_shards(corpus, bundle, tmp_path / "shards"))
    with pytest.raises(ChangedWorkError, match=f"^{shards}: prepared.json was {advice}"):
        load_shards(open_directory(str(tmp_path / "shards")))


def test_shards_prepared_for_another_tokenizer_are_refused(
    corpus, bundle, pair_bundle, bundle_factory, tmp_path, run_locally
):
    run_locally(plan_shards(corpus, bundle, tmp_path / "shards"))
    shorter = bundle_factory(tmp_path / "shorter", max_length=32)
    for other in (shorter, pair_bundle):
        with pytest.raises(InputError, match="prepared for another tokenizer, maximum length"):
            plan(tmp_path / "shards", other, tmp_path / "out")


def test_a_slower_bundle_than_shards_were_prepared_for_has_more_time(
    corpus, bundle, bundle_factory, tmp_path, run_locally
):
    """Else a shard of static vectors' seconds is ended with its actor, scored by a large model."""
    own = bundle.cost_profile
    for name, factor, expected in (("light", 0.01, 100.0), ("heavy", 100.0, 1.0)):
        seconds = tuple(factor * one for one in own.seconds_per_row)
        profile = dataclasses.replace(own, seconds_per_row=seconds)
        other = dataclasses.replace(bundle_factory(tmp_path / name), cost_profile=profile)
        shards = tmp_path / f"{name}.shards"
        run_locally(plan_shards(corpus, write_manifest(other, other.path), shards))
        spec = plan(shards, bundle, tmp_path / f"{name}.out").worker_spec()
        assert spec.slowness == pytest.approx(expected)
        assert spec.extra == pytest.approx(expected - 1)
    assert plan(corpus, bundle, tmp_path / "own").worker_spec().extra == 0


def test_settings_that_prepared_shards_cannot_honor_are_refused(
    corpus, bundle, tmp_path, run_locally
):
    run_locally(plan_shards(corpus, bundle, tmp_path / "shards"))
    with pytest.raises(InputError, match=r"--keep-columns lang: not prepared \(kept columns: id\)"):
        plan(tmp_path / "shards", bundle, tmp_path / "out", keep_columns=("id", "lang"))
    with pytest.raises(InputError, match="--limit applies when a corpus is prepared"):
        plan(tmp_path / "shards", bundle, tmp_path / "out", limit=5)


def test_engine_and_budget_are_chosen_once_and_kept_for_the_rerun(
    corpus, bundle, tmp_path, monkeypatch, run_locally
):
    choices = [EngineChoice(engine="onnxruntime", max_batch_tokens=n) for n in (128, 512)]
    monkeypatch.setattr(
        fastformers.cluster.devices.scoring, "tune", lambda bundle, **asked: choices.pop(0)
    )
    first = plan(corpus, bundle, tmp_path / "out", engine="auto")
    run_locally(first)
    again = plan(corpus, bundle, tmp_path / "out", engine="auto")
    assert (again.engine, again.max_batch_tokens) == ("onnxruntime", 128)
    assert again.identity == first.identity
    assert len(choices) == 1
    asked = plan(corpus, bundle, tmp_path / "out", max_batch_tokens=64)
    assert asked.max_batch_tokens == 64
    with pytest.raises(ChangedWorkError, match="max batch tokens changed"):
        run_locally(asked)


def test_the_engine_is_part_of_what_the_work_is(corpus, bundle, tmp_path, run_locally):
    need_openvino()
    run_locally(plan(corpus, bundle, tmp_path / "out", max_batch_tokens=256))
    other = plan(corpus, bundle, tmp_path / "out", max_batch_tokens=256, engine="openvino")
    assert other.worker_spec().scorings["cpu"].engine == describe_now(other)["engine"] == "openvino"
    with pytest.raises(ChangedWorkError, match="engine changed since"):
        run_locally(other)


def test_a_rerun_needs_the_engine_that_it_began_with(
    corpus, bundle, tmp_path, run_locally, monkeypatch
):
    need_openvino()
    options = {"max_batch_tokens": 256}
    run_locally(plan(corpus, bundle, tmp_path / "out", engine="openvino", **options))
    monkeypatch.setattr(engines, "find_spec", lambda package: None)
    with pytest.raises(InputError, match="openvino: it is not installed"):
        plan(corpus, bundle, tmp_path / "out", engine="auto", **options)


def test_device_and_precision_are_part_of_what_the_work_is(
    corpus, two_graphs, tmp_path, run_locally
):
    run_locally(plan(corpus, two_graphs, tmp_path / "out"))
    on_gpus = ScoringSettings(device="cuda")
    job = plan(corpus, two_graphs, tmp_path / "out", scoring=on_gpus)
    assert [(one.device, one.precision) for one in job.scorings] == [("cuda", "float16")]
    assert (job.engine, job.max_batch_tokens) == ("onnxruntime-cuda", CARD_BATCH_TOKENS)
    plan_of_it = describe(job, find_earlier_work(job))
    assert plan_of_it["precision"] == {"cuda": "float16"}
    assert plan_of_it["gpu_max_batch_tokens"] == CARD_BATCH_TOKENS
    with pytest.raises(ChangedWorkError, match=": device, slice bytes, precision, "):
        run_locally(job)
    both = plan(corpus, two_graphs, tmp_path / "other", scoring=ScoringSettings(device="mixed"))
    assert [one.precision for one in both.scorings] == ["float32", "float16"]
    assert both.identity["bundle"][0] != both.identity["bundle"][1]


def test_shards_for_gpus_fill_their_batches(corpus, two_graphs, tmp_path):
    on_cores = plan(corpus, two_graphs, tmp_path / "a", shard_seconds=None)
    on_gpus = plan(
        corpus,
        two_graphs,
        tmp_path / "b",
        scoring=ScoringSettings(device="cuda"),
        shard_seconds=None,
    )
    a_token_s = two_graphs.cost_profile.estimate_seconds_per_token()
    assert on_gpus.preparation.shard_seconds == pytest.approx(MIN_GPU_SHARD_TOKENS * a_token_s)
    assert on_gpus.preparation.shard_seconds > on_cores.preparation.shard_seconds
