import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.cluster.records.tally import ActorTally
from fastformers.cluster.report.bill import (
    HEADINGS,
    NodeTime,
    compare_prediction,
    estimate_saved_usd,
    itemize,
    round_for_people,
    round_total,
    split,
)
from fastformers.cluster.shards.receipts import Attempt

PHASES = {"read": 0.5, "infer": 3.0, "write": 0.25}


def attempt(start_s, end_s, *, actor="host:0", job="score", number=1, is_lost=False, phase_s=None):
    return Attempt(
        node="node",
        actor=actor,
        job=job,
        name="00000-00000",
        number=number,
        start_s=start_s,
        end_s=end_s,
        is_lost=is_lost,
        phase_s=PHASES if phase_s is None else phase_s,
    )


def node(attempts=(), *, actor_cores=None, **changes):
    """A node of a run that sets up for 3 s, works until 20 s and ends at 21 s."""
    cores = {"host:0": 1} if actor_cores is None else actor_cores
    tallies = {actor: ActorTally() for actor in cores}
    for one in attempts:
        tallies[one.actor].add_attempt(one)
    fields = {
        "joined_s": 0.0,
        "left_s": 21.0,
        "ready_s": 3.0,
        "work_end_s": 20.0,
        "num_idle_cores": 0,
        "actors": tuple((tallies[actor], num_cores) for actor, num_cores in cores.items()),
        "usd_per_hour": 3600.0,
    }
    return NodeTime(**{**fields, **changes})


def bill_of(nodes, *, padding_efficiency):
    """The bill of one session on these nodes."""
    spent = split(nodes, padding_efficiency=padding_efficiency)
    return itemize([spent], usd_total=math.fsum(one.usd for one in nodes))


def seconds(*nodes, padding_efficiency=1.0):
    items = bill_of(nodes, padding_efficiency=padding_efficiency)
    return {item.heading: item.core_s for item in items}


def test_an_actor_s_time_is_cut_at_what_the_driver_saw():
    """It waits a second for a job, loads for 2.25, is handed over 0.25, and is idle for 8."""
    bill = seconds(node([attempt(4.0, 10.0), attempt(10.0, 14.0), attempt(14.0, 14.0, phase_s={})]))
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
        node(
            [
                attempt(3.0, 8.0),
                attempt(8.0, 9.5, is_lost=True, phase_s={}),
                attempt(9.5, 15.0, number=2),
                attempt(15.0, 16.0, job="search", phase_s={}),
                attempt(16.0, 20.0),
            ]
        )
    )
    assert bill["retries"] == pytest.approx(1.5 + (5.5 - 3.75) + 1.0)
    assert bill["model load"] == pytest.approx(5.0 - 3.75)
    assert bill["compute"] == pytest.approx(9.0)


def test_an_actor_that_dies_as_it_starts_loads_nothing_twice():
    lost = attempt(3.0, 5.0, is_lost=True, phase_s={})
    bill = seconds(node([lost, attempt(5.0, 11.0, number=2)]))
    assert bill["retries"] == pytest.approx(2.0 + 2.25)
    assert "model load" not in bill


def test_padding_is_taken_out_of_compute():
    bill = seconds(node([attempt(3.0, 8.0)]), padding_efficiency=0.75)
    assert (bill["compute"], bill["padding"]) == pytest.approx((2.25, 0.75))


def test_a_second_graph_takes_its_share_of_what_is_no_padding():
    spent = split([node([attempt(3.0, 8.0)])], padding_efficiency=0.75, second_share=0.4)
    parts = [spent[name].core_s for name in ("padding", "second graph", "compute")]
    assert parts == pytest.approx([0.75, 0.4 * 2.25, 0.6 * 2.25])
    assert spent["second graph"].usd == pytest.approx(0.9)


def test_nothing_is_padding_where_no_token_was_computed():
    bill = seconds(node([attempt(3.0, 8.0)]), padding_efficiency=None)
    assert (bill["compute"], "padding" in bill) == (3.0, False)


def test_work_that_was_lost_with_its_node_is_a_retry_and_no_waiting():
    """The second job of its actor was under way for 5 s when it left."""
    one = attempt(3.0, 7.0)
    lost, drained = (seconds(node([one], left_s=12.0, lost_work=is_lost)) for is_lost in (1, 0))
    assert lost["retries"] == drained["waiting"] == 5.0
    assert "waiting" not in lost
    assert "retries" not in drained


def test_a_node_that_left_as_it_joined_is_on_no_line():
    assert seconds(node(joined_s=5.0, left_s=5.0)) == {}


def test_a_machine_that_costs_nothing_is_billed_nothing_on_each_line():
    items = bill_of([node([attempt(3.0, 8.0)], usd_per_hour=0.0)], padding_efficiency=1.0)
    assert {item.usd for item in items} == {0.0}
    assert math.fsum(item.core_s for item in items) == pytest.approx(21.0)


def test_actors_without_work_and_cores_without_actors_are_paid_for_too():
    actor_cores = {"host:0": 2, "host:1": 2}
    bill = seconds(node([attempt(3.0, 8.0)], actor_cores=actor_cores, num_idle_cores=3))
    assert bill["unused cores"] == pytest.approx(3 * 21.0)
    assert bill["idle tail"] == pytest.approx(2 * (20.0 - 8.0) + 2 * (20.0 - 3.0))
    assert math.fsum(bill.values()) == pytest.approx((4 + 3) * 21.0)


def test_an_actor_that_did_nothing_is_idle_when_its_node_is_ready():
    idle = node(actors=((None, 2),))
    assert seconds(idle) == pytest.approx({"start-up": 6.0, "idle tail": 34.0, "closing": 2.0})


def test_a_run_with_nothing_left_to_do_pays_for_looking():
    looking = node(actor_cores={}, ready_s=0.0, work_end_s=0.0, left_s=0.5)
    assert seconds(looking) == {"start-up": 0.5}


def test_a_node_that_joins_late_and_leaves_early_is_paid_for_between():
    """Joins at 5, is ready at 7, gets a job at 8, the last ends at 13, and is gone at 15."""
    bill = seconds(node([attempt(8.0, 13.0)], joined_s=5.0, ready_s=7.0, left_s=15.0))
    assert bill == pytest.approx(
        {
            "start-up": 2.0,
            "waiting": 1.0 + 2.0,
            "model load": 5.0 - 3.75,
            "reading": 0.5,
            "compute": 3.0,
            "writing": 0.25,
        }
    )


def test_a_job_that_begins_before_its_node_is_called_ready_ends_the_start():
    bill = seconds(node([attempt(2.0, 8.0)]))
    assert (bill["start-up"], "waiting" in bill) == (2.0, False)


def test_a_node_that_never_worked_is_paid_for_as_unused():
    refused = node(actor_cores={}, num_idle_cores=4, joined_s=5.0, left_s=9.0)
    assert seconds(refused) == {"unused cores": 16.0}


def test_attempts_that_end_after_their_node_left_cost_no_more_than_it():
    late = node([attempt(4.0, 20.0, is_lost=True, phase_s={})], left_s=12.0)
    assert seconds(late) == pytest.approx({"start-up": 3.0, "waiting": 1.0, "retries": 8.0})


def test_the_same_second_costs_more_on_a_dearer_node():
    """One computes for 3 s at 1 USD a second, the other for 3 s at 4 USD a second on two cores."""
    cheap = node([attempt(3.0, 8.0)])
    dear = node(
        [attempt(3.0, 8.0)],
        actor_cores={"host:0": 1, "host:1": 1},
        usd_per_hour=4 * 3600.0,
    )
    usd = {item.heading: item.usd for item in bill_of([cheap, dear], padding_efficiency=1.0)}
    assert usd["compute"] == pytest.approx(3 * 1 + 3 * 4 / 2)
    assert sum(usd.values()) == pytest.approx(21 * 1 + 21 * 4)


spans = st.lists(
    st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(0, 3), st.booleans()), max_size=12
)


@given(
    st.lists(
        st.tuples(spans, st.integers(1, 64), st.integers(0, 3), st.floats(0, 4), st.floats(0, 60)),
        min_size=1,
        max_size=4,
    ),
    st.floats(1e-3, 1e5),
)
def test_lines_add_up_to_the_total_to_the_last_digit(nodes, usd_per_hour):
    """Nodes join and leave whenever they like, at different prices."""
    times = []
    for number, (jobs, cores, num_idle_cores, joined_s, stays_s) in enumerate(nodes):
        attempts, now = [], 3.0
        for wait_s, took_s, infer_s, is_lost in jobs:
            start_s, now = now + wait_s, now + wait_s + took_s
            phases = {} if is_lost else {"infer": infer_s}
            attempts.append(attempt(start_s, now, is_lost=is_lost, phase_s=phases))
        times.append(
            node(
                attempts,
                actor_cores={"host:0": cores},
                num_idle_cores=num_idle_cores,
                joined_s=joined_s,
                left_s=joined_s + 1 + stays_s,
                usd_per_hour=usd_per_hour * (1 + number),
            )
        )
    items = bill_of(times, padding_efficiency=0.9)
    usd_total = math.fsum(time.usd for time in times)
    printed = [Decimal(str(float(item.usd))) for item in items]
    assert sum(printed) == Decimal(str(float(round_total(usd_total))))
    assert all(usd >= 0 for usd in printed)
    shown = round_for_people(items, usd_total=usd_total)
    assert sum(shown) == Decimal(usd_total).quantize(shown[0])
    assert float(round_total(usd_total)) == pytest.approx(usd_total, rel=1e-4, abs=0.005)
    assert math.fsum(item.core_s for item in items) == pytest.approx(
        sum(
            (cores + idle) * t.paid_s
            for (_, cores, idle, _, _), t in zip(nodes, times, strict=True)
        )
    )
    headings = {item.heading for item in items}
    assert [item.heading for item in items] == [h for h in HEADINGS if h in headings]


def test_what_was_under_way_when_a_session_was_cut_off_is_told_apart():
    cut = node([attempt(4.0, 10.0)], work_end_s=21.0, is_cut=True)
    bill = seconds(cut)
    assert bill["cut off"] == pytest.approx(11.0)
    assert "idle tail" not in bill


def test_the_bill_of_two_sessions_is_the_sum_of_theirs():
    first, second = node([attempt(3.0, 8.0)]), node([attempt(4.0, 9.0)], usd_per_hour=7200.0)
    one, two = (split([own], padding_efficiency=1.0) for own in (first, second))
    items = itemize([one, two], usd_total=first.usd + second.usd)
    usd = {item.heading: item.usd for item in items}
    assert usd["compute"] == pytest.approx(3 * 1 + 3 * 2)
    assert sum(usd.values()) == pytest.approx(21 * 1 + 21 * 2)
    assert math.fsum(item.core_s for item in items) == pytest.approx(42)


def test_equal_texts_would_have_cost_their_share_of_compute():
    items = bill_of([node([attempt(3.0, 8.0)])], padding_efficiency=0.75)
    saved = estimate_saved_usd(items, num_tokens=1500, num_scored_tokens=1000)
    assert saved == Decimal("1.50")  # half of the 3 seconds, at a dollar a second
    assert estimate_saved_usd(items, num_tokens=0, num_scored_tokens=0) == 0


def compare(predicted_s, measured_s):
    sample = list(zip(predicted_s, measured_s, strict=True))
    return compare_prediction(sum(predicted_s), sum(measured_s), sample)


def test_the_prediction_is_held_against_what_was_measured():
    twice = compare([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert twice.error == pytest.approx(-0.5)
    assert twice.shard_error == pytest.approx(0.0)
    uneven = compare([1.0, 1.0], [1.5, 0.5])
    assert uneven.error == pytest.approx(0.0)
    assert uneven.shard_error == pytest.approx(0.5)
    assert compare([], []) is None


def test_a_sample_says_how_far_a_shard_is_off():
    """Of four shards two are in the sample; the common factor is that of all."""
    sampled = compare_prediction(4.0, 4.0, [(1.0, 1.5), (1.0, 0.5)])
    assert (sampled.error, sampled.shard_error) == (0.0, 0.5)


def test_a_run_of_less_than_a_second_is_held_against_its_prediction_too():
    brief = compare_prediction(0.5, 0.25, [])
    assert (brief.error, brief.shard_error) == (1.0, 0.0)  # no shard is in the sample
    assert compare_prediction(0.5, 0.0, []) is compare_prediction(0.0, 0.5, []) is None
