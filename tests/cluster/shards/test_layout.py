import io
import itertools
import json
import pickle
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastformers.cluster.shards.layout import (
    MAX_SHARD_SECONDS,
    MIN_SHARD_SECONDS,
    Shard,
    build_shard_table,
    cut_shards,
    cut_spans,
    plan_num_shards,
    plan_shard_seconds,
    read_shard_table,
)
from fastformers.inference.tokenizer import TokenizedRows

seconds = st.one_of(st.just(0.0), st.floats(1e-9, 1e3))
shard_seconds = st.floats(1e-3, 1e4)
# A row is token ids and how many of them are of the second text; None is a bad row.
contents = st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(0, 1))
shard_rows = st.lists(st.none() | contents, max_size=30)


def tokenize(rows):
    ids = [row[0] for row in rows]
    return TokenizedRows(
        ids=np.array([i for row in ids for i in row], np.uint16),
        offsets=np.cumsum([0, *map(len, ids)]).astype(np.int64),
        second_lengths_N=np.array([row[1] for row in rows], np.uint16),
    )


def build(rows):
    """The table of rows, as it comes back from a file."""
    good = [row for row in rows if row is not None]
    good_N = np.array([i for i, row in enumerate(rows) if row is not None], np.intp)
    errors = {i: f"bad {i}" for i, row in enumerate(rows) if row is None}
    kept = pa.table({"id": np.arange(len(rows)), "name": [f"n{i}" for i in range(len(rows))]})
    sink = io.BytesIO()
    table = build_shard_table(tokenize(good), good_N, errors, kept)
    pyarrow.parquet.write_table(table, sink, row_group_size=7)
    return pyarrow.parquet.read_table(io.BytesIO(sink.getvalue()))


def untokenize(tokens):
    bounds = tokens.offsets.tolist()
    return [
        (tokens.ids[a:b].tolist(), second)
        for a, b, second in zip(bounds, bounds[1:], tokens.second_lengths_N.tolist(), strict=False)
    ]


@given(st.lists(seconds, max_size=50), shard_seconds)
def test_shards_cover_all_rows_in_order_and_none_is_empty(seconds, shard_seconds):
    runs = cut_shards(np.array(seconds), shard_seconds)
    assert list(itertools.chain.from_iterable(runs)) == list(range(len(seconds)))
    assert all(len(run) > 0 for run in runs)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=300), st.floats(10, 100))
def test_shards_of_small_rows_cost_the_same(seconds, shard_seconds):
    seconds_N = np.array(seconds)
    costs = [seconds_N[run.start : run.stop].sum() for run in cut_shards(seconds_N, shard_seconds)]
    even = seconds_N.sum() / len(costs)
    assert len(costs) == max(1, round(seconds_N.sum() / shard_seconds))
    assert max(abs(cost - even) for cost in costs) <= seconds_N.max() + 1e-9


@given(st.lists(seconds, min_size=1, max_size=50), shard_seconds)
def test_no_shard_costs_more_than_its_share_and_one_row(seconds, shard_seconds):
    seconds_N = np.array(seconds)
    total = seconds_N.sum()
    num_shards = min(len(seconds), max(1, round(total / shard_seconds)))
    for run in cut_shards(seconds_N, shard_seconds):
        cost = seconds_N[run.start : run.stop].sum()
        assert cost <= (total / num_shards + seconds_N.max()) * (1 + 1e-9)


def test_shards_where_one_row_costs_more_than_a_shard():
    seconds_N = np.array([1.0, 1, 1, 30, 1, 1, 1])
    assert cut_shards(seconds_N, 10) == [range(4), range(4, 7)]


def test_no_rows_make_no_shard_and_bad_rows_cost_nothing():
    assert cut_shards(np.zeros(0), 1.0) == []
    assert cut_shards(np.zeros(1000), 1.0) == [range(1000)]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=8),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_spans_of_a_run_are_those_of_its_rows(spans, start, num_rows):
    rows = [(number, path) for number, (path, n) in enumerate(spans) for _ in range(n)]
    assume(start + num_rows <= len(rows))
    covered = rows[start : start + num_rows]
    expected = tuple((key[1], len(list(group))) for key, group in itertools.groupby(covered))
    assert cut_spans(spans, range(start, start + num_rows)) == expected


@settings(deadline=None)
@given(shard_rows)
def test_a_shard_table_holds_every_row(rows):
    table = build(rows)
    unique = untokenize(read_shard_table(table))
    lines = table.to_pylist()
    assert sorted(line["place"] for line in lines) == list(range(len(rows)))
    for line in lines:
        row = rows[line["place"]]
        if row is None:
            assert line["unique"] is None
            assert line["error"] == f"bad {line['place']}"
        else:
            assert unique[line["unique"]] == (row[0], row[1])
            assert line["error"] is None
        assert line["keep.id"] == line["place"]
        assert line["keep.name"] == f"n{line['place']}"


@settings(deadline=None)
@given(shard_rows)
def test_a_shard_table_stores_equal_texts_once_and_sorts_by_length(rows):
    table = build(rows)
    unique = untokenize(read_shard_table(table))
    different = {(tuple(row[0]), row[1]) for row in rows if row is not None}
    assert len(unique) == len(different)
    assert {(tuple(ids), second) for ids, second in unique} == different
    assert [len(ids) for ids, _ in unique] == sorted(len(ids) for ids, _ in unique)

    numbers = table["unique"].to_pylist()
    good = [number for number in numbers if number is not None]
    assert good == sorted(good)
    assert numbers == good + [None] * (len(rows) - len(good))  # bad rows last
    stored = [ids is not None for ids in table["input_ids"].to_pylist()]
    assert stored[: len(good)] == [a != b for a, b in itertools.pairwise([None, *good])]
    assert not any(stored[len(good) :])


def test_equal_texts_are_stored_once_in_corpus_order():
    table = build([([5, 6], 0), ([7], 0), None, ([5, 6], 0), ([5, 6], 1)])
    assert table["place"].to_pylist() == [1, 0, 3, 4, 2]
    assert table["unique"].to_pylist() == [0, 1, 1, 2, None]
    assert table["input_ids"].to_pylist() == [[7], [5, 6], None, [5, 6], None]
    assert table["second_length"].to_pylist() == [0, 0, 0, 1, None]
    assert table["error"].to_pylist() == [None, None, None, None, "bad 2"]


@pytest.mark.parametrize("num_rows", [0, 1, 3])
def test_a_shard_of_bad_rows_only_has_no_texts(num_rows):
    table = build([None] * num_rows)
    rows = read_shard_table(table)
    assert len(rows) == 0
    assert rows.offsets.tolist() == [0]
    assert table["error"].to_pylist() == [f"bad {row}" for row in range(num_rows)]


def test_a_shard_without_kept_columns_has_its_rows():
    tokens = tokenize([([1], 0)])
    table = build_shard_table(tokens, np.array([1]), {0: "bad"}, pa.table({}))
    assert table["place"].to_pylist() == [1, 0]


def test_ids_of_a_large_vocabulary_are_kept():
    tokens = TokenizedRows(
        ids=np.array([70_000, 250_001], np.uint32),
        offsets=np.array([0, 2]),
        second_lengths_N=np.zeros(1, np.uint16),
    )
    table = build_shard_table(tokens, np.array([0]), {}, pa.table({"id": [0]}))
    assert read_shard_table(table).ids.tolist() == [70_000, 250_001]


@given(st.integers(0, 10**15), st.floats(1e-9, 1))
def test_shard_seconds_stay_within_bounds(text_bytes, seconds_per_token):
    planned = plan_shard_seconds(text_bytes, seconds_per_token)
    assert MIN_SHARD_SECONDS <= planned <= MAX_SHARD_SECONDS
    assert planned <= plan_shard_seconds(2 * text_bytes, seconds_per_token)


def test_shard_seconds_are_a_share_of_the_corpus_between_the_bounds():
    # 4.5 MB are a million tokens; at a millisecond each, 1,000 s, a 200th of which is 5 s
    assert plan_shard_seconds(4_500_000, 1e-3) == pytest.approx(5.0)
    assert plan_shard_seconds(0, 1e-3) == MIN_SHARD_SECONDS
    assert plan_shard_seconds(10**12, 1e-3) == MAX_SHARD_SECONDS


def test_a_shard_for_gpus_is_a_64th_of_the_corpus_between_a_million_and_eight_million_tokens():
    for tokens, of_shard in ((64 * 4e6, 4e6), (64 * 1e6, 2**20), (64 * 9e6, 2**23)):
        planned = plan_shard_seconds(round(4.5 * tokens), 1e-3, for_gpus=True)
        assert planned == pytest.approx(of_shard * 1e-3)


def test_the_number_of_shards_follows_from_the_seconds_of_one():
    assert plan_num_shards(4_500_000, 1e-3) == 200
    assert plan_num_shards(45_000, 1e-3) == 5  # 10 s, in shards of 2 s
    assert plan_num_shards(45_000_000, 1e-3) == 500  # 10,000 s, in shards of 20 s
    assert plan_num_shards(0, 1e-3) == 1


@pytest.fixture
def shard():
    """A shard of two files."""
    return Shard(
        name="00001-00002",
        num_rows=3,
        num_unique=2,
        num_tokens=9,
        num_unique_tokens=6,
        predicted_s=0.1,
        spans=(("a.csv", 1), ("b.csv", 2)),
    )


def test_a_shard_survives_json_and_pickle(shard):
    assert Shard.from_json(json.loads(json.dumps(asdict(shard)))) == shard
    assert pickle.loads(pickle.dumps(shard)) == shard
    assert shard.file_name == "part-00001-00002.parquet"


def test_shards_of_a_file_share_its_name_and_a_million_fit_into_memory(shard):
    """They come one by one, pickled from actors or as JSON from a log."""
    pickled, text = pickle.dumps(shard), json.dumps(asdict(shard))
    copies = [
        *(pickle.loads(pickled) for _ in range(2)),
        *(Shard.from_json(json.loads(text)) for _ in range(2)),
    ]
    assert len({id(copy.spans[0][0]) for copy in copies}) == 1
    assert not hasattr(shard, "__dict__")
    assert len(pickled) < 200
