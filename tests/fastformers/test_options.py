"""Fields of configs that are flags, and the values that are refused by their flags."""

import re
from dataclasses import dataclass, field, fields

import pytest

from fastformers.errors import InputError
from fastformers.options import (
    check_at_least,
    check_option,
    check_positive,
    flag_of,
    option,
    option_of,
)


@dataclass(frozen=True, kw_only=True)
class Config:
    num_rounds: int | None = field(default=2, metadata=option("rounds of all", metavar="ROUNDS"))
    share: float = field(default=0.5, metadata=option("share of the rows"))
    hidden: int = 7

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_rounds", "hidden")
        check_option(self, "share", 0 < self.share <= 1, "a share up to 1")


def test_a_field_says_what_its_flag_needs_and_others_are_no_flags():
    found = {entry.name: option_of(entry.metadata) for entry in fields(Config)}
    assert found["hidden"] is None
    assert (found["num_rounds"].meaning, found["num_rounds"].metavar) == ("rounds of all", "ROUNDS")
    assert (found["share"].meaning, found["share"].metavar) == ("share of the rows", None)


@pytest.mark.parametrize(
    ("name", "flag"), [("limit", "--limit"), ("max_batch_tokens", "--max-batch-tokens")]
)
def test_a_flag_has_the_name_of_its_field(name, flag):
    assert flag_of(name) == flag


@pytest.mark.parametrize("values", [{}, {"num_rounds": 1}, {"num_rounds": None}, {"share": 1.0}])
def test_values_at_their_bounds_and_missing_ones_pass(values):
    Config(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_rounds": 0}, "--num-rounds 0: give at least 1"),
        ({"num_rounds": 0, "hidden": 0}, "--num-rounds 0: give at least 1"),
        ({"hidden": -3}, "--hidden -3: give at least 1"),
        ({"share": 0.0}, "--share 0: give a share up to 1"),
        ({"share": 1.25}, "--share 1.25: give a share up to 1"),
        ({"share": float("nan")}, "--share nan: give a share up to 1"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_flag(values, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Config(**values)


def test_a_bound_may_be_a_fraction():
    with pytest.raises(InputError, match=r"^--share 0\.2: give at least 0\.25$"):
        check_at_least(Config(share=0.2), 0.25, "share")


@dataclass(frozen=True)
class Speed:
    per_second: float | None

    def __post_init__(self):
        check_positive(self, "per_second")


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_number_that_must_be_positive_has_an_end(value):
    with pytest.raises(InputError, match=f"^--per-second {value:g}: give more than 0$"):
        Speed(value)
    assert Speed(None).per_second is None
    assert Speed(1e9).per_second == 1e9
