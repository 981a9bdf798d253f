"""Wishes that make no sense are refused by their flags."""

import pytest

from fastformers.cluster.cost.planning.offers import PlanSettings
from fastformers.errors import InputError
from tests.cluster.cost.planning.make_offers import make_offer


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"deadline_s": 0}, "--deadline 0"),
        ({"budget_usd": -5}, "--budget -5"),
        ({"max_instances": 0}, "--max-instances 0"),
        ({"startup_s": -1}, "--startup-s -1"),
        ({"interruptions_per_hour": -1}, "--interruptions-per-hour -1"),
        *(
            ({"confidence": chance}, "--confidence .*: give a chance from 0.5 to 0.99")
            for chance in (0.0, 0.4, 1.0, 95, float("nan"))
        ),
    ],
)
def test_wishes_that_make_no_sense_are_refused_by_their_flag(changes, flag):
    with pytest.raises(InputError, match=flag):
        PlanSettings(**changes)


def test_the_least_and_the_most_that_can_be_asked_for():
    for chance in (0.5, 0.99):
        assert PlanSettings(confidence=chance).confidence == chance
    least = PlanSettings(max_instances=1, startup_s=0, interruptions_per_hour=0)
    assert least.max_instances == 1


def test_what_is_not_said_is_assumed():
    """As the flags say: on-demand machines, of which spot ones are lost once in 20 hours."""
    settings = PlanSettings()
    assert (settings.spot, settings.interruptions_per_hour, settings.startup_s) == (
        False,
        0.05,
        180,
    )
    offer = make_offer()
    assert (offer.error_factor, offer.sample_error) == (1.0, 0.0)


def test_a_job_has_as_many_shards_as_its_actors_take_seconds_for_and_at_least_one():
    assert make_offer().num_shards == 100_000 * 16 / 20
    assert make_offer(job_s=0.1).num_shards == 1
