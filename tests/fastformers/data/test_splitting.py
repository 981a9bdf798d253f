import pytest

from fastformers.data.examples import Examples
from fastformers.data.splitting import leave_out_known, split_off, without_texts_of
from fastformers.errors import InputError


def make(texts, **columns):
    return Examples(
        **{"texts": texts, "text_pairs": None, "labels": [len(text) for text in texts], **columns}
    )


NOTHING = make([])


def test_a_tenth_is_held_out_and_at_least_a_thousand_but_never_more_than_a_quarter():
    for num_rows, expected in ((20_000, 2000), (6000, 1000), (400, 100)):
        examples = make([f"text {row}" for row in range(num_rows)])
        rest, held_out = split_off(examples, but=NOTHING, path="t.csv")
        assert len(held_out) == expected
        assert sorted(rest.texts + held_out.texts) == sorted(examples.texts)
        assert held_out.labels == [len(text) for text in held_out.texts]


def test_the_split_is_the_same_in_any_order_and_moves_little_where_rows_are_added():
    texts = [f"text {row}" for row in range(2000)]
    _, held_out = split_off(make(texts), but=NOTHING, path="t.csv")
    _, again = split_off(make(texts[::-1]), but=NOTHING, path="t.csv")
    assert again.texts == held_out.texts[::-1]
    _, more = split_off(make([*texts, "one more"]), but=NOTHING, path="t.csv")
    assert len({*more.texts} ^ {*held_out.texts}) <= 2


def test_equal_texts_are_on_one_side():
    texts = [f"text {row % 300}" for row in range(1200)]
    rest, held_out = split_off(make(texts), but=NOTHING, path="t.csv")
    assert len(held_out) == 300
    assert {*rest.texts}.isdisjoint(held_out.texts)


def test_rows_of_one_passage_are_on_one_side():
    texts = [f"passage {row // 8}" for row in range(1600)]
    groups = [row // 4 for row in range(1600)]
    pairs = [f"answer {row}" for row in range(1600)]
    rest, held_out = split_off(
        make(texts, text_pairs=pairs, groups=groups), but=NOTHING, path="t.csv"
    )
    assert len(held_out) == 400
    assert {*rest.texts}.isdisjoint(held_out.texts)


def test_rows_of_the_evaluation_file_are_not_held_out():
    texts = [f"text {row}" for row in range(400)]
    _, held_out = split_off(make(texts), but=make(texts[:200]), path="t.csv")
    assert len(held_out) == 100
    assert {*held_out.texts} <= {*texts[200:]}


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match=r"t\.csv: 3 rows are too few to hold some out"):
        split_off(make(["a", "b", "c"]), but=NOTHING, path="t.csv")


def test_held_out_texts_that_are_known_are_left_out_and_said(caplog):
    held_out = make(["a", "b", "c", "d"])
    new = leave_out_known(held_out, make(["a", "x"]), make(["d"]), path="h.csv")
    assert new.texts == ["b", "c"]
    assert "h.csv: 2 of 4 rows are left out: their texts are in --train or --eval" in caplog.text
    with pytest.raises(InputError, match=r"h\.csv: each of its texts is in --train or --eval"):
        leave_out_known(held_out, held_out, path="h.csv")


def test_pairs_that_differ_only_in_where_they_are_split_are_different():
    first = make(["ab", "a", "a"], text_pairs=["c", "bc", "b"])
    left = without_texts_of(first, make(["a"], text_pairs=["bc"]))
    assert list(zip(left.texts, left.text_pairs, strict=True)) == [("ab", "c"), ("a", "b")]
