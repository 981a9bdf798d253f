"""An output as a whole is one Parquet dataset, in the libraries that people read it with."""

import json

import pyarrow.dataset
import pytest

from fastformers.cluster.execution.job import open_prepare_job, open_score_job
from fastformers.cluster.settings import CorpusSettings, PredictionSettings
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import InputError

NUM_ROWS = 60
TEXTS = ["a cat", "the film", "a dog ran fast", "good", "bad film", "the mat"]
WRITTEN = PredictionSettings(columns=("label", "probabilities,top_k=1"), label_column="label")


@pytest.fixture
def corpus(tmp_path, write_rows):
    """Rows with labels under the name of the predictions'; one has no text, one no label."""
    rows = [
        {"id": row, "text": f"{TEXTS[row % 6]} {row}", "label": ("no", "yes")[row % 2]}
        for row in range(NUM_ROWS)
    ]
    rows[7]["text"] = rows[8]["label"] = None
    return write_rows(tmp_path / "corpus.jsonl", rows)


@pytest.fixture
def score(bundle_factory, tmp_path, run_locally):
    """Score a corpus, or prepared shards, in several shards; returns the result and the output."""
    bundle = bundle_factory(tmp_path / "bundle", labels=("no", "yes"))

    def run(corpus, *, keep=("id", "__row__"), written=WRITTEN, output="out"):
        settings = CorpusSettings(keep_columns=keep, shard_seconds=0.002)
        job = open_score_job(
            str(corpus),
            bundle.path,
            str(tmp_path / output),
            settings,
            max_batch_tokens=256,
            written=written,
        )
        result = run_locally(job)
        job.home.write_json("report.json", {"rows": NUM_ROWS})
        with job.home.write("report.html") as file:
            file.write(b"<p>a page</p>")
        return result, tmp_path / output

    run.bundle = bundle
    return run


def test_every_library_reads_the_output_and_nothing_beside_the_predictions(score, corpus):
    _, output = score(corpus)
    parts = sorted((output / "predictions").iterdir())
    assert len(parts) > 1
    assert {path.name for path in output.iterdir()} == {"predictions", "__run__"}
    columns = ["id", "__row__", "label", "probabilities", "top_k", "error"]
    found = pyarrow.dataset.dataset(output).to_table()
    assert found.column_names == columns
    assert found["id"].to_pylist() == found["__row__"].to_pylist() == list(range(NUM_ROWS))
    assert [row for row, error in enumerate(found["error"].to_pylist()) if error] == [7]


def test_pandas_reads_the_output(score, corpus):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    _, output = score(corpus)
    found = pandas.read_parquet(output)
    assert found["id"].tolist() == list(range(NUM_ROWS))
    assert found["top_k"][0][0]["label"] == found["label"][0]


def test_polars_reads_the_predictions(score, corpus):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    _, output = score(corpus)
    for path in (output / "predictions", output / "predictions" / "*.parquet"):
        found = polars.read_parquet(path)
        assert found["id"].to_list() == list(range(NUM_ROWS))
        assert found["top_k"][0][0]["label"] == found["label"][0]


def test_duckdb_reads_the_predictions(score, corpus):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    _, output = score(corpus)
    query = f"SELECT id, label, top_k[1].label FROM '{output}/predictions/*.parquet'"
    ids, labels, best = zip(*duckdb.sql(query).fetchall(), strict=True)
    assert ids == tuple(range(NUM_ROWS))
    assert labels == best


def test_hugging_face_datasets_read_the_output(score, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    _, output = score(corpus)
    found = datasets.load_dataset("parquet", data_dir=str(output), split="train")
    assert found["id"] == list(range(NUM_ROWS))


def test_labels_are_counted_and_not_written_unless_they_are_kept(score, corpus):
    result, output = score(corpus)
    labels = result.tally.scored.labels
    assert (labels.num_rows, labels.num_unlabeled) == (NUM_ROWS - 2, 1)
    assert labels.labels == {'"no"': 29, '"yes"': 29}
    predicted = pyarrow.dataset.dataset(output).to_table()["label"].to_pylist()
    labeled = [label for row, label in enumerate(predicted) if row not in (7, 8)]
    assert labels.classes == {
        str(number): labeled.count(name)
        for number, name in enumerate(("no", "yes"))
        if name in labeled
    }
    with pytest.raises(InputError, match="--keep-columns label: the predictions have a column of"):
        score(corpus, keep=("label",), output="other")
    _, kept = score(
        corpus,
        keep=("label",),
        written=PredictionSettings(columns=("logits",), label_column="label"),
        output="kept",
    )
    assert pyarrow.dataset.dataset(kept).schema.names == ["label", "logits", "error"]


def test_labels_of_prepared_shards_must_have_been_kept(score, corpus, tmp_path, run_locally):
    def prepare(name, keep):
        settings = CorpusSettings(keep_columns=keep, shard_seconds=0.002)
        path = tmp_path / name
        run_locally(open_prepare_job(str(corpus), score.bundle.path, str(path), settings))
        return path

    result, _ = score(prepare("with", ("id", "label")), keep=("id",))
    assert result.tally.scored.labels.num_rows == NUM_ROWS - 2
    with pytest.raises(InputError, match=r"--label-column label: not prepared \(kept columns: id"):
        score(prepare("without", ("id",)), keep=(), output="other")


def test_a_resumed_run_counts_the_labels_of_both_sessions(score, corpus):
    first, output = score(corpus)
    sorted((output / "predictions").iterdir())[0].unlink()
    second, _ = score(corpus)
    both = second.tally.earlier.labels
    both.add(second.tally.scored.labels)
    assert second.tally.scored.num_shards == 1
    assert json.dumps(both.pairs, sort_keys=True) == json.dumps(
        first.tally.scored.labels.pairs, sort_keys=True
    )


@pytest.mark.parametrize("task", ["embedding", "multiple-choice"])
def test_a_task_without_labels_refuses_them_by_name(bundle_factory, corpus, tmp_path, task):
    bundle = bundle_factory(
        tmp_path / "other", task=task, labels=(), num_outputs=1, text_pairs=task != "embedding"
    )
    with pytest.raises(InputError, match=f"--label-column label: predictions of the task {task}"):
        open_score_job(
            str(corpus),
            bundle.path,
            str(tmp_path / "out"),
            CorpusSettings(text_pair_column="id" if bundle.text_pairs else None),
            max_batch_tokens=256,
            written=PredictionSettings(label_column="label"),
        )
    assert not open_directory(str(tmp_path / "out")).list_files()
