import pyarrow.parquet
import pytest

import fastformers.cluster.corpus.slices
from tests.cluster.execution.plans import plan
from tests.cluster.outputs import read_dead_letters

TEXTS = ["a cat", "the film", "a dog ran fast", "good", "bad film", "the mat", "it sat", "slow"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_dead_letters_name_file_and_row(
    bundle, tmp_path, write_rows, run_locally, told, monkeypatch, suffix
):
    """Rows are named correctly across files that share slices, and slices that share files."""
    slice_bytes = 4000 if suffix == ".parquet" else 1000  # a footer takes more than the texts
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", slice_bytes)
    sizes = {"a": 23, "b": 1, "c": 2, "d": 40}
    bad = {("a", 0), ("a", 7), ("a", 22), ("b", 0), ("c", 1), ("d", 0), ("d", 31), ("d", 39)}
    order = [(name, row) for name, size in sizes.items() for row in range(size)]
    for name, size in sizes.items():
        rows = [
            {"id": row, "text": " " if (name, row) in bad else f"{TEXTS[row % 8]} {row}"}
            for row in range(size)
        ]
        write_rows(tmp_path / "corpus" / f"{name}{suffix}", rows, row_group_size=5)

    result = run_locally(plan(tmp_path / "corpus", bundle, tmp_path / "out", shard_seconds=0.0005))
    assert len(told.shards) > 10
    assert max(len(shard.spans) for shard in told.shards) > 1
    letters = read_dead_letters(tmp_path / "out").to_pylist()
    assert result.dead_letters == len(letters) == len(bad)
    expected = [(number, place) for number, place in enumerate(order) if place in bad]
    for letter, (corpus_row, (name, file_row)) in zip(letters, expected, strict=True):
        assert letter["corpus_row"] == corpus_row
        assert letter["file"] == str(tmp_path / "corpus" / f"{name}{suffix}")
        assert letter["file_row"] == file_row
        assert letter["error"] == "column 'text': empty text"
        part = pyarrow.parquet.read_table(tmp_path / "out" / "predictions" / letter["part"])
        assert part["error"][letter["part_row"]].as_py() == letter["error"]
        assert part["id"][letter["part_row"]].as_py() in (file_row, str(file_row))


def test_dead_letters_of_earlier_runs_are_listed(bundle, tmp_path, write_rows, run_locally):
    rows = [{"id": row, "text": "" if row % 5 == 0 else "a cat " * row} for row in range(30)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    first = run_locally(plan(path, bundle, tmp_path / "out"))
    letters = read_dead_letters(tmp_path / "out").to_pylist()
    sorted((tmp_path / "out" / "predictions").iterdir())[0].unlink()
    again = run_locally(plan(path, bundle, tmp_path / "out"))
    assert 0 < again.tally.scored.num_shards < first.tally.scored.num_shards
    assert again.dead_letters == first.dead_letters == 6
    assert read_dead_letters(tmp_path / "out").to_pylist() == letters
