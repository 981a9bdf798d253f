import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.report.bill import (
    HEADINGS,
    RunTimes,
    compare_prediction,
    estimate_saved_usd,
    itemize,
    round_total,
)
from cluster.shards.receipts import Attempt

TIMES = RunTimes(setup_s=3.0, work_end_s=20.0, wall_s=21.0)
PHASES = {"read": 0.5, "infer": 3.0, "write": 0.25}


def attempt(start_s, end_s, *, actor="host:0", job="score", number=1, is_lost=False, phase_s=None):
    return Attempt(
        actor=actor,
        job=job,
        name="00000-00000",
        number=number,
        start_s=start_s,
        end_s=end_s,
        is_lost=is_lost,
        phase_s=PHASES if phase_s is None else phase_s,
    )


def seconds(attempts, *, times=TIMES, actor_cores=None, num_idle_cores=0, **changes):
    fields = {"padding_efficiency": 1.0, "usd_total": 1.0, **changes}
    items = itemize(
        attempts,
        times,
        actor_cores={"host:0": 1} if actor_cores is None else actor_cores,
        num_idle_cores=num_idle_cores,
        **fields,
    )
    return {item.heading: item.core_s for item in items}


def test_an_actor_s_time_is_cut_at_what_the_driver_saw():
    """It waits a second for a job, loads for 2.25, is handed over 0.25, and is idle for 8."""
    bill = seconds([attempt(4.0, 10.0), attempt(10.0, 14.0), attempt(14.0, 14.0, phase_s={})])
    assert bill == pytest.approx(
        {
            "start-up": 3.0,
            "waiting": 1.0,
            "model load": 6.0 - 3.75,
            "reading": 1.0,
            "compute": 6.0,
            "writing": 0.5,
            "hand-over": 0.25,
            "idle tail": 6.0,
            "closing": 1.0,
        }
    )


def test_what_was_lost_is_a_retry_and_so_is_the_restart():
    bill = seconds(
        [
            attempt(3.0, 8.0),
            attempt(8.0, 9.5, is_lost=True, phase_s={}),
            attempt(9.5, 15.0, number=2),
            attempt(15.0, 16.0, job="search", phase_s={}),
            attempt(16.0, 20.0),
        ]
    )
    assert bill["retries"] == pytest.approx(1.5 + (5.5 - 3.75) + 1.0)
    assert bill["model load"] == pytest.approx(5.0 - 3.75)
    assert bill["compute"] == pytest.approx(9.0)


def test_an_actor_that_dies_as_it_starts_loads_nothing_twice():
    bill = seconds([attempt(3.0, 5.0, is_lost=True, phase_s={}), attempt(5.0, 11.0, number=2)])
    assert bill["retries"] == pytest.approx(2.0 + 2.25)
    assert "model load" not in bill


def test_padding_is_taken_out_of_compute():
    bill = seconds([attempt(3.0, 8.0)], padding_efficiency=0.75)
    assert (bill["compute"], bill["padding"]) == pytest.approx((2.25, 0.75))


def test_actors_without_work_and_cores_without_actors_are_paid_for_too():
    bill = seconds([attempt(3.0, 8.0)], actor_cores={"host:0": 2, "host:1": 2}, num_idle_cores=3)
    assert bill["unused cores"] == pytest.approx(3 * 21.0)
    assert bill["idle tail"] == pytest.approx(2 * (20.0 - 8.0) + 2 * (20.0 - 3.0))
    assert math.fsum(bill.values()) == pytest.approx((4 + 3) * 21.0)


def test_a_run_with_nothing_left_to_do_pays_for_looking():
    assert seconds([], actor_cores={}, times=RunTimes(setup_s=0, work_end_s=0, wall_s=0.5)) == {
        "start-up": 0.5
    }


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(0, 3), st.booleans()), max_size=12
    ),
    st.integers(1, 64),
    st.floats(1e-7, 1e6),
)
def test_lines_add_up_to_the_total_to_the_last_digit(jobs, cores, usd_total):
    attempts, now = [], 3.0
    for wait_s, took_s, infer_s, is_lost in jobs:
        start_s, now = now + wait_s, now + wait_s + took_s
        phases = {} if is_lost else {"infer": infer_s}
        attempts.append(attempt(start_s, now, is_lost=is_lost, phase_s=phases))
    times = RunTimes(setup_s=3.0, work_end_s=now, wall_s=now + 0.5)
    items = itemize(
        attempts,
        times,
        actor_cores={"host:0": cores},
        num_idle_cores=1,
        padding_efficiency=0.9,
        usd_total=usd_total,
    )
    printed = [Decimal(str(float(item.usd))) for item in items]
    assert sum(printed) == Decimal(str(float(round_total(usd_total))))
    assert all(usd >= 0 for usd in printed)
    assert float(round_total(usd_total)) == pytest.approx(usd_total, rel=1e-4, abs=0.005)
    assert math.fsum(item.core_s for item in items) == pytest.approx((cores + 1) * times.wall_s)
    assert [item.heading for item in items] == [
        h for h in HEADINGS if h in {i.heading for i in items}
    ]


def test_equal_texts_would_have_cost_their_share_of_compute():
    items = itemize(
        [attempt(3.0, 8.0)],
        TIMES,
        actor_cores={"host:0": 1},
        num_idle_cores=0,
        padding_efficiency=0.75,
        usd_total=21.0,
    )
    saved = estimate_saved_usd(items, num_tokens=1500, num_scored_tokens=1000)
    assert saved == Decimal("1.50")  # half of the 3 seconds, at a dollar a second
    assert estimate_saved_usd(items, num_tokens=0, num_scored_tokens=0) == 0


def test_the_prediction_is_held_against_what_was_measured():
    twice = compare_prediction([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert twice.error == pytest.approx(-0.5)
    assert twice.shard_error == pytest.approx(0.0)
    uneven = compare_prediction([1.0, 1.0], [1.5, 0.5])
    assert uneven.error == pytest.approx(0.0)
    assert uneven.shard_error == pytest.approx(0.5)
    assert compare_prediction([], []) is None
