import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastformers.cluster.shards.layout import build_shard_table
from fastformers.cluster.shards.predictions import (
    Agreement,
    build_predictions,
    compare_predictions,
    read_errors,
    read_receipt,
    write_predictions,
)
from fastformers.cluster.shards.receipts import Receipt
from fastformers.cluster.storage.directory import open_directory
from fastformers.inference.tasks import EMBEDDING, TEXT_CLASSIFICATION
from fastformers.inference.tokenizer import TokenizedRows

LABELS = ("no", "perhaps", "yes")
RECEIPT = Receipt(
    shard="00000-00001",
    actor="host:0",
    attempt=2,
    num_rows=4,
    num_unique=2,
    num_errors=1,
    num_tokens=12,
    num_scored_tokens=8,
    num_computed_tokens=8,
    num_batches=2,
    started_at=1763900000.25,
    finished_at=1763900001.5,
    predicted_s=0.1 + 0.2,
    rss_bytes=2**33,
    peak_rss_bytes=2**34,
    phase_s={"read": 0.1, "infer": 1 / 3, "write": 0.0},
)
# A row is the number of its text, or None for a bad row.
numbers = st.lists(st.none() | st.integers(0, 5), min_size=1, max_size=30)


def make_shard(rows):
    """A stored shard; text k has k + 1 tokens, so texts that occur are ranked by k."""
    good = [row for row in rows if row is not None]
    tokens = TokenizedRows(
        ids=np.concatenate([*[np.full(k + 1, k, np.uint16) for k in good], np.empty(0, np.uint16)]),
        offsets=np.cumsum([0, *[k + 1 for k in good]]),
        second_lengths_N=np.zeros(len(good), np.uint16),
    )
    good_N = np.array([i for i, row in enumerate(rows) if row is not None], np.intp)
    errors = {i: f"bad {i}" for i, row in enumerate(rows) if row is None}
    kept = pa.table({"id": [f"row {i}" for i in range(len(rows))], "other": range(len(rows))})
    return build_shard_table(tokens, good_N, errors, kept)


def softmax(logits):
    powers = np.exp(np.array(logits, np.float64) - max(logits))
    return powers / powers.sum()


@pytest.fixture
def directory(tmp_path):
    return open_directory(str(tmp_path))


@settings(deadline=None)
@given(numbers, st.sets(st.integers(0, 5)), st.randoms())
def test_predictions_are_in_corpus_order(rows, failing, rng):
    present = sorted({row for row in rows if row is not None})
    logits = {k: [rng.uniform(-5, 5) for _ in LABELS] for k in present}
    logits_UC = np.array([logits[k] for k in present], np.float32).reshape(-1, 3)
    errors_U = {rank: f"failed {k}" for rank, k in enumerate(present) if k in failing}
    logits_UC[list(errors_U)] = np.nan
    table = build_predictions(
        make_shard(rows), logits_UC, TEXT_CLASSIFICATION.columns, LABELS, errors_U, ("id",)
    )

    assert table.schema.names == ["id", "label", "probability", "error"]
    assert table.schema.types[1:] == [pa.string(), pa.float32(), pa.string()]
    assert table["id"].to_pylist() == [f"row {i}" for i in range(len(rows))]
    for i, (k, line) in enumerate(zip(rows, table.to_pylist(), strict=True)):
        if k is None or k in failing:
            reason = f"bad {i}" if k is None else f"failed {k}"
            assert line == {"id": f"row {i}", "label": None, "probability": None, "error": reason}
        else:
            stored = np.float32(logits[k])
            assert line["label"] == LABELS[stored.argmax()]
            assert line["probability"] == pytest.approx(softmax(stored).max(), rel=1e-5)
            assert line["error"] is None


def test_a_shard_of_bad_rows_only():
    table = build_predictions(
        make_shard([None, None]),
        np.empty((0, 3), np.float32),
        TEXT_CLASSIFICATION.columns,
        LABELS,
        {},
        ("other",),
    )
    assert table.to_pylist() == [
        {"other": row, "label": None, "probability": None, "error": f"bad {row}"}
        for row in range(2)
    ]


def test_kept_columns_are_those_asked_for_in_that_order():
    shard, logits_UC = make_shard([0, 1]), np.zeros((2, 3), np.float32)
    names = [
        build_predictions(
            shard, logits_UC, TEXT_CLASSIFICATION.columns, LABELS, {}, keep
        ).column_names[:-3]
        for keep in ((), ("other",), ("other", "id"))
    ]
    assert names == [[], ["other"], ["other", "id"]]


def make_predictions():
    shard = make_shard([0, None, 1, 0])
    logits_UC = np.array([[0, 1, 2], [5, 0, 0]], np.float32)
    return build_predictions(shard, logits_UC, TEXT_CLASSIFICATION.columns, LABELS, {}, ("id",))


def test_the_receipt_is_in_the_file(directory):
    predictions = make_predictions()
    write_predictions(directory, "part.parquet", predictions, RECEIPT)
    assert read_receipt(directory, "part.parquet") == RECEIPT
    stored = pyarrow.parquet.read_table(Path(directory.path) / "part.parquet")
    assert stored.equals(predictions)


def test_predictions_are_written_whole_or_not_at_all(directory, monkeypatch):
    def half(table, sink, **options):
        sink.write(b"PAR1")
        raise KeyboardInterrupt

    monkeypatch.setattr(pyarrow.parquet, "write_table", half)
    with pytest.raises(KeyboardInterrupt):
        write_predictions(directory, "part.parquet", make_predictions(), RECEIPT)
    assert list(Path(directory.path).iterdir()) == []


def test_a_truncated_file_has_no_receipt(directory):
    write_predictions(directory, "part.parquet", make_predictions(), RECEIPT)
    content = (Path(directory.path) / "part.parquet").read_bytes()
    for length in [*range(0, len(content), 17), *range(len(content) - 9, len(content))]:
        (Path(directory.path) / "cut.parquet").write_bytes(content[:length])
        assert read_receipt(directory, "cut.parquet") is None


def test_a_damaged_footer_is_no_traceback(directory):
    """A resumed run scores such a shard again."""
    write_predictions(directory, "part.parquet", make_predictions(), RECEIPT)
    content = (Path(directory.path) / "part.parquet").read_bytes()
    footer_bytes = int.from_bytes(content[-8:-4], "little")
    rng = random.Random(0)
    num_unreadable = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[-8 - rng.randrange(footer_bytes)] ^= 1 << rng.randrange(8)
        (Path(directory.path) / "part.parquet").write_bytes(damaged)
        num_unreadable += read_receipt(directory, "part.parquet") is None
    assert num_unreadable > 0


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"pandas": "{}"},
        {"fastformers": "not JSON"},
        {"fastformers": "[]"},
        {"fastformers": "null"},
        {"fastformers": "{}"},
        {"fastformers": '{"shard": "00000-00000"}'},
    ],
)
def test_a_foreign_parquet_file_has_no_receipt(directory, metadata):
    table = pa.table({"label": ["yes"]}).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, Path(directory.path) / "part.parquet")
    assert read_receipt(directory, "part.parquet") is None


def test_a_file_that_is_not_there_or_not_parquet_has_no_receipt(directory):
    (Path(directory.path) / "empty.parquet").write_bytes(b"")
    (Path(directory.path) / "text.parquet").write_text("no Parquet " * 9)
    for name in ("none.parquet", "empty.parquet", "text.parquet"):
        assert read_receipt(directory, name) is None


def test_errors_are_read_with_their_rows(directory):
    write_predictions(directory, "part.parquet", make_predictions(), RECEIPT)
    assert read_errors(directory, "part.parquet") == [(1, "bad 1")]


def test_predictions_of_two_precisions_are_compared_by_label_and_value():
    labels = ("no", "yes")
    logits_SC = np.array([[2, 0], [0, 2], [1, 0], [np.nan, 0], [0, 3]], np.float32)
    stored = pa.table(
        {
            "label": ["no", "no", "no", "no", None],
            "probability": pa.array([0.88, 0.75, 0.73, 0.9, None], pa.float32()),
            "error": pa.array([None, None, None, None, "null text"], pa.string()),
        }
    )
    columns = TEXT_CLASSIFICATION.columns
    agreement = compare_predictions(stored, logits_SC, columns, labels)
    assert (agreement.num_texts, agreement.num_equal) == (3, 2)
    assert agreement.largest_difference == pytest.approx(0.8808 - 0.75, abs=1e-3)
    both = agreement + Agreement(num_texts=7, num_equal=7, largest_difference=0.01)
    assert (both.num_texts, both.num_equal) == (10, 9)
    assert both.largest_difference == agreement.largest_difference
    assert compare_predictions(stored[:0], logits_SC[:0], columns, labels) == Agreement()


def test_embeddings_have_no_label_to_be_equal():
    columns = EMBEDDING.columns
    stored = pa.table(
        {
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array([1.0, 0.0, 0.0, 1.0], pa.float32()), 2
            ),
            "error": pa.nulls(2, pa.string()),
        }
    )
    logits_SC = np.array([[1.0, 0.25], [0.0, 1.0]], np.float32)
    agreement = compare_predictions(stored, logits_SC, columns, ())
    assert (agreement.num_texts, agreement.num_equal) == (2, 2)
    assert agreement.largest_difference == 0.25
