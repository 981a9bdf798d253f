from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers import clock
from fastformers.clock import CpuTimer
from fastformers.inference import cost_profile
from fastformers.inference.batching import MAX_BATCH_ROWS, plan_batches
from fastformers.inference.cost_profile import (
    TOKEN_BUDGETS,
    CostProfile,
    measure_budgets,
    measure_cost_profile,
    measure_speeds,
    warn_if_busy,
)
from fastformers.inference.cpu import read_cpu_model

PROFILE = CostProfile(
    engine="onnxruntime 1.0",
    cpu_model="a processor",
    max_batch_tokens=512,
    lengths=(2, 10, 100),
    seconds_per_row=(1.0, 2.0, 20.0),
)


@pytest.mark.parametrize(
    ("length", "seconds"),
    [(2, 1), (10, 2), (100, 20), (6, 1.5), (55, 11), (1, 1), (500, 20)],
)
def test_seconds_are_interpolated_between_the_measured_lengths(length, seconds):
    assert PROFILE.estimate_seconds(np.array([length])).tolist() == [seconds]


@given(st.lists(st.integers(1, 200)))
def test_every_row_has_its_own_estimate(lengths):
    together_N = PROFILE.estimate_seconds(np.array(lengths, np.int64))
    alone = [PROFILE.estimate_seconds(np.array([length]))[0] for length in lengths]
    assert together_N.tolist() == alone


def test_rows_of_full_batches_cost_least_and_a_row_alone_most():
    profile = replace(PROFILE, max_batch_tokens=30, seconds_alone=(1.5, 5.0, 20.0))
    lengths_N = np.array([10, 10, 100])  # three rows of 10 fill a batch; one of 100 is always alone
    assert profile.estimate_seconds(lengths_N).tolist() == [2.0, 2.0, 20.0]
    alone_N = profile.estimate_seconds(lengths_N, np.ones(3))
    assert alone_N.tolist() == [5.0, 5.0, 20.0]
    # A batch costs 4.5 and each of its rows 0.5: two rows 5.5, three 6, four 11 (3 and 1).
    totals = [profile.estimate_total_seconds(np.full(n, 10)) for n in (1, 2, 3, 4, 6)]
    assert totals == pytest.approx([5.0, 5.5, 6.0, 11.0, 12.0])


def test_a_batch_of_one_row_costs_as_much_by_itself_as_at_the_next_shorter_length():
    profile = replace(PROFILE, max_batch_tokens=30, seconds_alone=(1.5, 5.0, 20.0))
    # A batch of rows of 10 costs 4.5, and so does one of two rows of 15; a row costs 0.5 at 10
    # tokens and 15.5 at 100.
    (seconds,) = profile.estimate_seconds(np.array([15]))
    assert seconds == pytest.approx(4.5 / 2 + 0.5 + 15.0 * 5 / 90)


def test_rows_in_a_full_batch_never_cost_more_than_alone_however_noisy_the_measurement():
    noisy = replace(PROFILE, seconds_alone=(0.9, 1.0, 10.0))
    lengths_N = np.arange(2, 100)
    assert (
        noisy.estimate_seconds(lengths_N, np.ones(98)) == noisy.estimate_seconds(lengths_N)
    ).all()


def test_old_bundles_know_only_full_batches():
    lengths_N = np.array([2, 10, 10, 100])
    assert PROFILE.estimate_total_seconds(lengths_N) == PROFILE.estimate_seconds(lengths_N).sum()


def test_batches_that_cost_something_by_themselves_are_predicted_as_planned(machine):
    def cost(rows, length):
        return 3e-4 + rows * 1e-5 * length

    profile = measure_cost_profile(machine(cost), max_length=256)
    rng = np.random.default_rng(0)
    for num_rows in (1, 30, 3000):
        lengths_N = (2 + rng.geometric(1 / 40, num_rows)).clip(2, 256)
        plan = plan_batches(lengths_N, max_batch_tokens=profile.max_batch_tokens)
        expected = sum(cost(len(batch), int(lengths_N[batch[0]])) for batch in plan)
        assert profile.estimate_total_seconds(lengths_N) == pytest.approx(expected)


def test_a_token_costs_its_share_of_a_row_of_64():
    assert PROFILE.estimate_seconds_per_token() == pytest.approx((2 + 18 * 54 / 90) / 64)


class FakeMachine:
    """An engine and its clock: a batch takes the seconds that `cost` says."""

    name = "fake 1.0"
    num_in_flight = 1

    def __init__(self, cost):
        self.seconds, self.slowed = 0.0, 1.0  # of CPU; how many times the wall time is
        self.shapes = []
        self._cost = cost

    def run(self, ids_BT, types_BT):
        assert types_BT.shape == ids_BT.shape
        assert ids_BT.min() >= 0
        self.shapes.append(ids_BT.shape)
        self.seconds += self._cost(self, *ids_BT.shape)

    def perf_counter(self):
        return self.seconds


@pytest.fixture
def machine(monkeypatch):
    def make(cost):
        fake = FakeMachine(lambda machine, rows, length: cost(rows, length))
        for module in (clock, cost_profile):
            timer = SimpleNamespace(
                perf_counter=lambda: fake.slowed * fake.perf_counter(),
                process_time=fake.perf_counter,
                thread_time=fake.perf_counter,
            )
            monkeypatch.setattr(module, "time", timer)
        return fake

    return make


def per_token(rows, length):
    return 0.001 * rows * length


@pytest.mark.parametrize("max_length", [2, 5, 32, 64, 128, 256, 384, 512])
def test_a_cost_in_proportion_to_tokens_is_measured_as_such(machine, max_length):
    profile = measure_cost_profile(machine(per_token), max_length=max_length)
    assert profile.engine == "fake 1.0"
    assert profile.lengths[0] == 2
    assert profile.lengths[-1] == max_length
    assert list(profile.lengths) == sorted(set(profile.lengths))
    assert profile.seconds_per_row == pytest.approx([0.001 * length for length in profile.lengths])
    lengths_N = np.arange(2, max_length + 1)
    np.testing.assert_allclose(profile.estimate_seconds(lengths_N), 0.001 * lengths_N)


def test_longer_rows_never_cost_less(machine):
    def quadratic(rows, length):
        return rows * (1e-3 * length + 1e-5 * length**2) + 1e-4

    profile = measure_cost_profile(machine(quadratic), max_length=256)
    assert (np.diff(profile.estimate_seconds(np.arange(1, 300))) >= 0).all()


@pytest.mark.parametrize("best", [256, 1024, 4096])
def test_the_fastest_token_budget_is_chosen(machine, best):
    def cost(rows, length):
        return rows * length * (1 + abs(rows * length - best) / best)

    assert measure_cost_profile(machine(cost), max_length=256).max_batch_tokens == best


def test_a_slow_model_is_not_tried_at_every_budget(machine):
    engine = machine(per_token)
    assert list(measure_budgets(engine, timer=CpuTimer(), max_length=256)) == [
        256,
        512,
        1024,
        2048,
        4096,
    ]
    # Three shapes, four runs each: 256 takes 3 s, 512 then ends beyond the limit.
    assert list(measure_budgets(engine, timer=CpuTimer(), max_length=256, limit_s=5)) == [256, 512]
    assert list(measure_budgets(engine, timer=CpuTimer(), max_length=256, limit_s=0)) == [256]


@pytest.mark.parametrize("max_length", [300, 5000])
def test_no_batch_exceeds_the_largest_budget_and_the_longest_row(machine, max_length):
    fake = machine(per_token)
    profile = measure_cost_profile(fake, max_length=max_length)
    assert profile.max_batch_tokens >= min(max_length, 512)
    # What a row between measured lengths would hide is hidden from no budget.
    assert {length for _, length in fake.shapes} - {512} <= set(profile.lengths)
    for rows, length in fake.shapes:
        assert rows * length <= max(*TOKEN_BUDGETS, max_length)
        assert rows <= MAX_BATCH_ROWS
        assert length <= max_length


@pytest.mark.parametrize("best", [512, 1024, 4096])
def test_a_model_of_very_long_rows_still_gets_the_fastest_budget(machine, best):
    def cost(rows, length):
        return rows * length * (1 + abs(rows * length - best) / best)

    fake = machine(cost)
    assert set(measure_budgets(fake, timer=CpuTimer(), max_length=8192)) == {512, 1024, 2048, 4096}
    assert max(length for _, length in fake.shapes) == 512
    assert measure_cost_profile(fake, max_length=8192).max_batch_tokens == best


def test_the_first_run_of_a_shape_and_one_slow_run_do_not_count(machine):
    seen: dict[tuple[int, int], int] = {}

    def cost(rows, length):
        runs = seen[rows, length] = seen.get((rows, length), 0) + 1
        return per_token(rows, length) * (100 if runs % 4 in (1, 3) else 1)

    profile = measure_cost_profile(machine(cost), max_length=64)
    assert profile.seconds_per_row == pytest.approx([0.001 * length for length in profile.lengths])


def test_the_processor_is_named_as_the_kernel_does(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        "processor\t: 0\nmodel\t\t: 106\nmodel name\t: Some CPU: 3 GHz\n\nmodel name\t: Other\n"
    )
    assert read_cpu_model(tmp_path) == "Some CPU: 3 GHz"


def test_a_processor_without_name_is_named_by_its_kind(tmp_path):
    assert read_cpu_model(tmp_path)


def test_a_busy_machine_is_said_and_its_profile_is_marked_but_as_cheap(machine, caplog):
    """Others take six of seven seconds of the wall time; what counts is the CPU's."""
    idle = measure_cost_profile(machine(per_token), max_length=64)
    assert (idle.waiting_share, idle.is_rough, caplog.text) == (0.0, False, "")
    shared = machine(per_token)
    shared.slowed = 7.0
    busy = measure_cost_profile(shared, max_length=64)
    assert busy.waiting_share == pytest.approx(6 / 7)
    assert busy.is_rough
    assert replace(busy, waiting_share=0.0) == idle
    assert "busy: measuring the cost profile waited 86% of the time for a CPU" in caplog.text
    for share, is_busy in ((clock.BUSY_SHARE, False), (clock.BUSY_SHARE + 0.01, True)):
        assert replace(busy, waiting_share=share).is_rough is is_busy
        assert warn_if_busy(SimpleNamespace(waiting_share=share), "it") is is_busy


def test_speeds_are_those_of_full_batches_at_the_lengths_of_a_profile(machine):
    profile = measure_cost_profile(machine(per_token), max_length=64)
    fake = machine(lambda rows, length: 2 * per_token(rows, length))
    assert measure_speeds(fake, profile, limit_s=1e9) == pytest.approx(
        {length: 0.002 * length for length in profile.lengths}
    )
    assert max(rows * length for rows, length in fake.shapes) <= profile.max_batch_tokens


@pytest.mark.parametrize(
    ("limit_s", "lengths"),
    [(1e9, [2, 9, 19, 37, 75, 139]), (3.0, [9, 37, 139]), (1.1, [37]), (0.0, [37])],
)
def test_where_time_is_short_fewer_lengths_are_measured_over_the_whole_range(
    machine, limit_s, lengths
):
    """A full batch takes 0.25 s at each length, and four turns of all six 6 s."""
    profile = replace(
        PROFILE,
        max_batch_tokens=250,
        lengths=(2, 9, 19, 37, 75, 139),
        seconds_per_row=tuple(0.25 / n for n in (125, 27, 13, 6, 3, 1)),
    )
    assert list(measure_speeds(machine(per_token), profile, limit_s=limit_s)) == lengths
