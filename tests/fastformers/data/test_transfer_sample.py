"""Texts for a student to learn from, drawn from a corpus of any size."""

import random

import numpy as np
import pytest

from fastformers.data import transfer_sample
from fastformers.data.examples import Columns, Examples
from fastformers.data.transfer_sample import TransferConfig, sample_transfer
from fastformers.errors import InputError
from fastformers.formats import windows


def examples(texts, pairs=None):
    return Examples(texts=texts, text_pairs=pairs, labels=[None] * len(texts))


NONE = {"--eval": examples(["held out"]), "--train": examples(["learned from"])}


def draw(corpus, *, known=NONE, columns=Columns(), **settings):  # noqa: B008
    return sample_transfer(TransferConfig(corpus=str(corpus), **settings), columns, known)


@pytest.fixture
def corpus(tmp_path, write_rows):
    """3,000 texts in three files, most of them short, each file in the order of their lengths."""
    chance = random.Random(1)
    lengths = sorted(int(chance.lognormvariate(3, 1)) + 1 for _ in range(3000))
    for name in range(3):
        rows = [{"text": f"{n} " + "x" * n + f" {name}-{at}"} for at, n in enumerate(lengths[::3])]
        write_rows(tmp_path / "corpus" / f"{name}.parquet", rows, row_group_size=300)
    return tmp_path / "corpus"


def test_the_same_corpus_and_seed_give_the_same_texts(corpus):
    first, again, other = (draw(corpus, rows=100, seed=seed).examples.texts for seed in (1, 1, 2))
    assert first == again
    assert len({*first}) == 100
    assert len({*first} & {*other}) < 30


def test_equal_texts_count_once_whatever_their_case_and_white_space(tmp_path, write_rows):
    texts = ["one", "One ", "two", "two", "  two", "three\tfour", "three four", "", " "]
    path = write_rows(tmp_path / "a.parquet", [{"text": text} for text in texts])
    found = draw(path)
    assert len(found.examples) == 3
    assert (found.num_read, found.num_bad) == (9, 2)
    assert "2 bad rows" in found.describe()


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_any_first_texts_have_the_lengths_of_the_corpus(corpus, share):
    lengths = [len(text) for text in draw(corpus).examples.texts]
    sample = draw(corpus, rows=400).examples.texts
    part = [len(text) for text in sample[: int(share * len(sample))]]
    at = np.linspace(0.1, 0.9, 9)
    # A random sample of 100 misses a decile by 4 points of rank on average, the worst by 8.
    ranks = np.searchsorted(np.sort(lengths), np.quantile(part, at)) / len(lengths)
    assert np.abs(ranks - at).max() < 0.05


def test_no_more_is_kept_or_read_than_a_sample_needs(corpus, monkeypatch):
    monkeypatch.setattr(windows, "WINDOW_BYTES", 2000)
    monkeypatch.setattr(transfer_sample, "_READ_BYTES", 20_000)
    found = draw(corpus, rows=50)
    assert 100 < found.num_read < 1500
    texts = found.examples.texts
    assert {text[-6:].partition("-")[0][-1] for text in texts} == {"0", "1", "2"}  # from each file
    assert len(draw(corpus, rows=2500).examples) == 2500  # more than the first windows hold


def test_fewer_texts_than_asked_for_are_refused_and_without_a_number_all_are_taken(
    tmp_path, write_rows
):
    path = write_rows(tmp_path / "a.csv", [{"text": f"text {n % 9}"} for n in range(30)])
    assert len(draw(path).examples) == 9
    assert len(draw(path, rows=9).examples) == 9
    with pytest.raises(InputError, match=r"a\.csv: 9 texts that differ .* --transfer-rows 10"):
        draw(path, rows=10)
    known = {"--eval": examples([f"text {n}" for n in range(9)]), "--train": examples([])}
    with pytest.raises(InputError, match="no text that is in no labeled file, too"):
        draw(path, known=known)


def test_pairs_are_known_by_both_texts(tmp_path, write_rows):
    rows = [{"q": "who", "p": "a page"}, {"q": "what", "p": "a page"}, {"q": "who", "p": "another"}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    known = {"--eval": examples(["WHO"], ["a page"]), "--train": examples([], [])}
    found = draw(path, known=known, columns=Columns(text="q", text_pair="p")).examples
    pairs = {*zip(found.texts, found.text_pairs, strict=True)}
    assert pairs == {("what", "a page"), ("who", "another")}


def test_a_corpus_may_name_its_columns_otherwise(tmp_path, write_rows):
    path = write_rows(tmp_path / "a.csv", [{"body": "a cat", "label": "yes"}])
    assert draw(path, text_column="body").examples.texts == ["a cat"]
    with pytest.raises(InputError, match=r"no column 'text' \(--transfer-text-column/"):
        draw(path)


@pytest.mark.parametrize(
    ("settings", "columns", "pairs", "said"),
    [
        ({}, Columns(), True, "--train holds pairs of texts: give --transfer-text-pair-column"),
        ({"text_pair_column": "b"}, Columns(), False, "--train holds single texts"),
        ({}, Columns(superglue="BoolQ"), True, "beside --superglue BoolQ, name the corpus's"),
        ({}, Columns(choices=("a", "b")), True, "no student learns from --choice-columns"),
    ],
)
def test_columns_that_do_not_fit_the_labeled_files_are_refused(
    tmp_path, write_rows, settings, columns, pairs, said
):
    path = write_rows(tmp_path / "a.csv", [{"text": "a", "b": "b"}])
    known = {"--eval": examples(["x"], ["y"] if pairs else None)}
    with pytest.raises(InputError, match=said):
        draw(path, known=known, columns=columns, **settings)


def test_buckets_are_for_those_who_know_them():
    with pytest.raises(InputError, match="s3://bucket/corpus: give a path on this machine"):
        draw("s3://bucket/corpus")


def test_settings_are_checked_where_they_are_given():
    with pytest.raises(InputError, match="--transfer-rows 0: give at least 1"):
        TransferConfig(rows=0)
    with pytest.raises(InputError, match="--transfer-seed -1: give at least 0"):
        TransferConfig(seed=-1)


def test_a_file_that_is_read_in_order_is_said_to_be_sampled_at_its_beginning(
    tmp_path, write_rows, monkeypatch, caplog
):
    path = write_rows(tmp_path / "a.jsonl.gz", [{"text": f"text {n}"} for n in range(900)])
    monkeypatch.setattr(windows, "WINDOW_BYTES", 2000)
    assert len(draw(path).examples) == 900
    assert not caplog.records
    monkeypatch.setattr(transfer_sample, "_READ_BYTES", 1000)
    draw(path, rows=20)
    (record,) = caplog.records
    assert "a.jsonl.gz: read in order" in record.message
