import pytest

from fastformers.cluster.scheduling.pace import Pace, estimate_remaining_s


def pace_of(*tasks):
    pace = Pace()
    for seconds, predicted_s in tasks:
        pace.add(seconds, predicted_s)
    return pace


def test_it_knows_nothing_before_the_first_task():
    pace = Pace()
    assert (pace.seconds, pace.factor) == (None, None)
    assert (pace.expect(1.0), pace.expect(None)) == (None, None)


def test_a_prediction_is_right_but_for_a_factor():
    pace = pace_of((6.0, 2.0))
    assert (pace.seconds, pace.factor) == (6.0, 3.0)
    assert pace.expect(5.0) == 15.0
    assert pace.expect(0.0) == 0.0


def test_a_task_without_prediction_takes_what_others_took():
    pace = pace_of((6.0, None))
    assert (pace.seconds, pace.factor) == (6.0, None)
    assert pace.expect(None) == 6.0
    assert pace.expect(1.0) is None  # nothing says what a prediction is worth


def test_a_prediction_of_nothing_says_nothing():
    assert pace_of((6.0, 0.0)).factor is None


def test_the_newest_task_counts_for_three_tenths():
    pace = pace_of((10.0, 10.0), (20.0, 5.0))
    assert pace.seconds == pytest.approx(13.0)
    assert pace.factor == pytest.approx(0.7 * 1.0 + 0.3 * 4.0)


def test_what_is_not_known_is_taken_from_another():
    other = pace_of((6.0, 2.0))
    assert Pace().expect(5.0, otherwise=other) == 15.0
    assert Pace().expect(None, otherwise=other) == 6.0
    assert pace_of((1.0, 1.0)).expect(5.0, otherwise=other) == 5.0
    assert Pace().expect(5.0, otherwise=Pace()) is None


@pytest.mark.parametrize(
    ("elapsed_s", "remaining_s"),
    [(0.0, 10.0), (4.0, 6.0), (10.0, 0.0), (15.0, 0.0), (20.0, 0.0), (21.0, 21.0), (90.0, 90.0)],
)
def test_a_task_that_takes_twice_what_was_expected_goes_on_as_long_again(elapsed_s, remaining_s):
    assert estimate_remaining_s(elapsed_s, 10.0) == remaining_s
