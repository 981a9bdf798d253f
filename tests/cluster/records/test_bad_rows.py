"""Rows that cannot be scored, and when they are too many."""

from dataclasses import replace

import pytest

from fastformers.cluster.records.bad_rows import BadRows
from fastformers.cluster.settings import BadRowLimit
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.errors import ScoringError
from tests.cluster.scheduling.jobs import make_lease, make_receipt, make_shard


def limit(text):
    parsed = BadRowLimit.parse(text)
    assert parsed is not None
    return parsed


def make_slice(num_rows, bad, example=None):
    shard = replace(make_shard(0), num_rows=num_rows)
    return SliceReceipt(
        index=0,
        first_shard=0,
        shards=(shard,),
        rest=None,
        phase_s={},
        bad=bad,
        bad_example=example,
    )


@pytest.mark.parametrize(
    ("text", "num_bad", "num_rows", "early", "late"),
    [
        ("1%", 100, 10_000, False, False),
        ("1%", 101, 10_000, True, True),
        ("1%", 9_000, 9_999, False, True),  # too few rows to judge by until there are no more
        ("0.01", 9, 12, False, False),
        ("1%", 10, 12, False, True),
        ("1%", 1, 1, False, True),  # all there is
        ("5%", 499, 10_000, False, False),
        ("100%", 20_000, 20_000, False, False),
        ("0", 1, 10**9, True, True),
        ("100", 100, 100, False, True),  # no number of rows bears that none is good
        ("100", 100, 101, False, False),
        ("99.9%", 5, 5, False, True),
        ("100", 101, 10**9, True, True),
        ("1%", 0, 0, False, False),
    ],
)
def test_a_share_is_judged_by_many_rows_or_by_all(text, num_bad, num_rows, early, late):
    assert limit(text).is_exceeded(num_bad, num_rows, are_all=False) is early
    assert limit(text).is_exceeded(num_bad, num_rows, are_all=True) is late


@pytest.mark.parametrize("text", ["", "-1", "x", "1.5", "101%", "1%%", "nan", "5 %x", "1e3"])
def test_what_is_no_limit(text):
    assert BadRowLimit.parse(text) is None


def test_the_commonest_reason_is_named_with_an_example():
    rows = BadRows()
    rows.add_slice(make_slice(20_000, {"column 'a': null text": 150, "not JSON": 2}, "f: row 7: x"))
    rows.add_slice(make_slice(500, {"not JSON": 5}, "g: row 0: y"))
    rows.add_receipt(make_receipt(make_lease(0), failures={"the model failed": 60}))
    assert (rows.num_rows, rows.num_bad) == (20_500, 217)
    with pytest.raises(ScoringError) as caught:
        rows.check(limit("1%"), are_all=False)
    assert str(caught.value).startswith(
        "217 of 20,500 rows read so far cannot be scored, more than --max-bad-rows 1% allows; "
        "150 of them as f: row 7: x; mend "
    )
    rows.check(limit("2%"), are_all=True)
    with pytest.raises(ScoringError, match=r"of 20,500 rows cannot .*; out/list lists them; "):
        rows.check(limit("216"), are_all=True, listed_in="out/list")


def test_a_run_without_a_good_row_never_ends_well_unless_the_user_says_so():
    rows = BadRows()
    rows.add_slice(make_slice(5, {"not JSON": 5}, "f: row 0: x"))
    with pytest.raises(ScoringError) as caught:
        rows.check(limit("100"), are_all=True, listed_in="out/list")
    assert str(caught.value) == (
        "none of the 5 rows can be scored, and --max-bad-rows 100 does not bear that; 5 of them as "
        "f: row 0: x; out/list lists them; mend the corpus or the flags that say how to read it, "
        "or give --max-bad-rows 100%, which alone bears that"
    )
    rows.check(limit("100%"), are_all=True)
