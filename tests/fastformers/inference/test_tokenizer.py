import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer

from fastformers.inference.tokenizer import Tokenizer

MAX_LENGTH = 8
CHARACTERS = 40 * MAX_LENGTH  # of texts longer than this, the start is tried first

words = st.sampled_from(["cat", "dog", "the", "zebra9", "x" * 101, "y" * 60, "good.", "é", "☃"])
gaps = st.sampled_from([" ", "\n", "\f", " " * 50, " " * CHARACTERS])
texts = st.lists(st.tuples(words, gaps).map("".join), max_size=12).map("".join)
long_texts = st.builds(
    lambda front, text: " " * front + text, st.integers(CHARACTERS - 130, CHARACTERS + 5), texts
)


@pytest.fixture(scope="module")
def library(tokenizer_json):
    """Encodings of the `tokenizers` library itself, truncated to a length."""
    truncating = {}

    def encode(text, max_length=MAX_LENGTH):
        if max_length not in truncating:
            truncating[max_length] = HfTokenizer.from_str(tokenizer_json)
            truncating[max_length].enable_truncation(max_length)
        return truncating[max_length].encode_batch_fast([text])[0]

    return encode


@pytest.fixture(scope="module")
def tokenizer(tokenizer_json):
    return Tokenizer(tokenizer_json, max_length=MAX_LENGTH)


def row_ids(rows, row):
    return rows.ids[rows.offsets[row] : rows.offsets[row + 1]].tolist()


@given(st.lists(texts | st.text(max_size=40).filter(str.isprintable), max_size=6))
def test_rows_have_the_ids_of_the_library(tokenizer, library, batch):
    batch = [text[:CHARACTERS] for text in batch]
    rows = tokenizer.encode(batch)
    assert len(rows) == len(batch)
    assert [row_ids(rows, row) for row in range(len(rows))] == [library(t).ids for t in batch]
    assert rows.lengths_N.tolist() == [len(library(text).ids) for text in batch]
    assert rows.second_lengths_N.tolist() == [0] * len(batch)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_pairs_have_the_ids_and_types_of_the_library(tokenizer, library, pairs):
    short = [(a[:CHARACTERS], b[:CHARACTERS]) for a, b in pairs]
    rows = tokenizer.encode(*zip(*short, strict=True))
    for row, pair in enumerate(short):
        expected = library(pair)
        assert row_ids(rows, row) == expected.ids
        assert rows.batch_types(np.array([row])).tolist() == [expected.type_ids]


@given(long_texts)
@settings(max_examples=300)
def test_a_long_text_is_truncated_as_the_library_truncates_it(tokenizer, library, text):
    assert tokenizer.encode([text]).ids.tolist() == library(text).ids


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x" * 5_000_000, id="one word"),
        pytest.param(" " * 5_000_000 + "cat", id="spaces and a word"),
        pytest.param("cat " * 2_000, id="words"),
        # Cut in the middle, the last word is short enough to be spelled; whole, it is unknown.
        pytest.param(" " * (CHARACTERS - 50) + "x" * 200, id="a long word at the cut"),
        # A form feed is dropped, so what stands around it is one word of 120 letters.
        pytest.param(" " * (CHARACTERS - 70) + "x" * 60 + "\f" + "y" * 60, id="a form feed"),
        pytest.param("cat dog the mat sat " + "x" * 5_000, id="a long word that fills the row"),
    ],
)
def test_a_text_of_many_characters_is_truncated_as_the_library_truncates_it(
    tokenizer, library, text
):
    assert len(text) > CHARACTERS
    assert tokenizer.encode([text]).ids.tolist() == library(text).ids


@pytest.mark.parametrize("max_length", [MAX_LENGTH, MAX_LENGTH + 1])
@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(("cat " * 500, "dog"), id="long first"),
        pytest.param(("dog", "cat " * 500), id="long second"),
        pytest.param((" " * 500 + "cat " * 9, "dog " * 9), id="spaces first"),
        pytest.param(("dog " * 9, " " * 500 + "cat " * 9), id="spaces second"),
        # The longer one gets the odd token, and the starts do not say which is longer.
        pytest.param(("cat " * 300, "a " * 300), id="both long, as many words"),
        pytest.param(("cat " * 300, "a " * 250), id="both long, the first has more words"),
    ],
)
def test_a_pair_with_a_long_text_is_truncated_as_the_library_truncates_it(
    tokenizer_json, library, pair, max_length
):
    rows = Tokenizer(tokenizer_json, max_length=max_length).encode([pair[0]], [pair[1]])
    expected = library(pair, max_length)
    assert rows.ids.tolist() == expected.ids
    assert rows.batch_types(np.array([0])).tolist() == [expected.type_ids]


def test_the_start_of_a_huge_text_is_enough(tokenizer):
    text = "the cat sat on the mat " * 200_000
    start = time.perf_counter()
    rows = tokenizer.encode([text] * 8)
    seconds = time.perf_counter() - start
    assert rows.lengths_N.tolist() == [MAX_LENGTH] * 8
    assert seconds < 2  # it takes 0.01 s; each of the eight texts as a whole takes more than 1 s


def test_chunks_join_without_a_seam(tokenizer, library):
    batch = ["cat " * (index % 5) for index in range(1200)]
    rows = tokenizer.encode(batch)
    assert [row_ids(rows, row) for row in range(1200)] == [library(text).ids for text in batch]


def test_no_texts_give_no_rows(tokenizer):
    rows = tokenizer.encode([])
    assert len(rows) == 0
    assert rows.ids.tolist() == []
    assert rows.lengths_N.tolist() == []


def test_ids_are_as_narrow_as_the_vocabulary_allows(tokenizer_json):
    parts = json.loads(tokenizer_json)
    vocabulary = parts["model"]["vocab"]
    vocabulary |= {f"word{index}": index for index in range(len(vocabulary), 65_537)}
    wide = Tokenizer(json.dumps(parts), max_length=MAX_LENGTH).encode(["cat word65536"])
    assert wide.ids.dtype == np.uint32
    assert wide.ids.tolist()[-2] == 65_536

    del vocabulary["word65536"]
    narrow = Tokenizer(json.dumps(parts), max_length=MAX_LENGTH).encode(["cat word65535"])
    assert narrow.ids.dtype == np.uint16
    assert narrow.ids.tolist()[-2] == 65_535


@given(st.lists(st.integers(0, 6), max_size=12), st.data())
def test_a_slice_holds_its_rows(tokenizer, counts, data):
    rows = tokenizer.encode(["cat " * count for count in counts], ["dog"] * len(counts))
    start = data.draw(st.integers(0, len(counts)))
    stop = data.draw(st.integers(start, len(counts)))
    part = rows.slice(start, stop)
    assert len(part) == stop - start
    assert part.offsets[0] == 0
    for row in range(len(part)):
        assert row_ids(part, row) == row_ids(rows, start + row)
        assert part.second_lengths_N[row] == rows.second_lengths_N[start + row]


@pytest.mark.parametrize("rows_B", [[1, 2], [2, 1], [0, 2], [1]])
def test_neighbors_in_a_batch_are_what_they_are_apart(tokenizer, rows_B):
    rows = tokenizer.encode(["the cat", "a dog", "good mat", "ran"])
    ids_BT = rows.batch_ids(np.array(rows_B))
    assert ids_BT.tolist() == [row_ids(rows, row) for row in rows_B]
    assert ids_BT.dtype == np.int64
    ids_BT[:] = 0  # its own memory
    assert row_ids(rows, 1) != [0] * ids_BT.shape[1]


def test_a_batch_has_the_ids_and_types_of_its_rows_in_its_order(tokenizer, library):
    pairs = [("cat", "good dog"), ("a", "b"), ("the cat", "dog"), ("mat sat on", "")]
    rows = tokenizer.encode(*zip(*pairs, strict=True))
    rows_B = np.array([3, 0, 2])
    expected = [library(pairs[row]) for row in rows_B]
    assert rows.batch_ids(rows_B).tolist() == [encoding.ids for encoding in expected]
    assert rows.batch_types(rows_B).tolist() == [encoding.type_ids for encoding in expected]
    assert rows.batch_ids(rows_B).dtype == rows.batch_types(rows_B).dtype == np.int64


def test_single_texts_are_of_the_first_type(tokenizer):
    rows = tokenizer.encode(["the cat", "a dog"])
    assert rows.batch_types(np.array([1, 0])).tolist() == [[0] * 4] * 2


@pytest.mark.parametrize("side", ["right", "left"])
@given(
    lengths=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    max_length=st.integers(4, 24),
)
@settings(max_examples=200)
def test_texts_and_pairs_are_cut_as_transformers_cuts_them(
    tokenizer_json, side, lengths, max_length
):
    """By the strategy that transformers takes for `truncation=True`."""
    own = HfTokenizer.from_str(tokenizer_json)
    own.enable_truncation(max_length, strategy="longest_first", direction=side)
    ours = Tokenizer(own.to_str(), max_length=max_length)
    words = ["the", "cat", "sat", "on", "a", "mat", "dog"]
    first, second = (
        " ".join(words[(at * step) % 7] for at in range(length))
        for length, step in zip(lengths, (1, 3), strict=True)
    )
    pair = own.encode_batch_fast([(first, second)])[0]
    rows = ours.encode([first], [second])
    assert rows.ids.tolist() == pair.ids
    assert rows.batch_types(np.array([0])).tolist() == [pair.type_ids]
    assert ours.encode([first]).ids.tolist() == own.encode_batch_fast([first])[0].ids


def test_a_pair_of_long_texts_costs_a_part_of_what_it_costs_the_library(tokenizer_json):
    """The library makes an encoding of each pair of pieces that it cuts off."""
    tokenizer = Tokenizer(tokenizer_json, max_length=64)
    library = HfTokenizer.from_str(tokenizer_json)
    library.enable_truncation(64)
    text = "the cat sat " * 2000

    def seconds(encode, *texts):
        start = time.perf_counter()
        encode(*texts)
        return time.perf_counter() - start

    of_library = seconds(library.encode_batch_fast, [(text, text)])
    ours = min(seconds(tokenizer.encode, [text], [text]) for _ in range(3))
    assert ours < of_library / 4


def test_ids_beyond_the_size_of_a_vocabulary_with_gaps_are_kept(tokenizer_json):
    parts = json.loads(tokenizer_json)
    parts["model"]["vocab"]["cat"] = 70_000
    tokenizer = Tokenizer(json.dumps(parts), max_length=MAX_LENGTH)
    assert tokenizer.encode(["the cat"]).ids.tolist()[-2] == 70_000
    assert tokenizer.vocab_size == 70_001
