"""Flags that are made from a config, and the config that is made from flags."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from fastformers.errors import InputError
from fastformers.jobs.console.flags import add_config_arguments, read_config
from fastformers.options import check_at_least, option


@dataclass(frozen=True, kw_only=True)
class Inner:
    num_rounds: int = field(default=2, metadata=option("rounds of all"))
    small: float = field(default=5e-5, metadata=option("rate of a step"))
    rate: float = field(default=1e-3, metadata=option("share (100% is 1) a round"))

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_rounds")


@dataclass(frozen=True, kw_only=True)
class Outer:
    path: Path = field(metadata=option("what to read"))
    kind: Literal["long", "short"] = field(default="long", metadata=option("how long"))
    is_dry: bool = field(default=False, metadata=option("do nothing"))
    names: tuple[str, ...] = field(default=(), metadata=option("of columns", metavar="A,B"))
    limit: int | None = field(default=None, metadata=option("only the first rows", metavar="ROWS"))
    sizes: tuple[int, ...] = field(
        default=(10, 200), metadata=option("of what is tried", metavar="A,B")
    )
    wait_s: float | None = field(default=None, metadata=option("how long", name="wait"))
    hidden: int = 7
    inner: Inner = field(default=Inner(num_rounds=5))

    def __post_init__(self) -> None:
        check_at_least(self, 1, "wait_s")


def minutes(text):
    if not text.endswith("m"):
        raise argparse.ArgumentTypeError(f"{text!r} is not in minutes")
    return 60.0 * int(text[:-1])


def sizes(text):
    return tuple(int(size) for size in text.split(","))


def make_parser():
    parser = argparse.ArgumentParser()
    add_config_arguments(parser, Outer, parsers={"wait_s": minutes, "sizes": sizes})
    add_config_arguments(parser, Outer.inner)
    return parser


def read(*arguments, **given):
    return read_config(Outer, make_parser().parse_args(list(arguments)), **given)


def test_without_flags_the_config_is_the_default_one():
    assert read("--path", "a") == Outer(path=Path("a"))


def test_a_field_that_is_left_out_keeps_its_default():
    parser = argparse.ArgumentParser()
    add_config_arguments(parser, Outer, leave_out=["limit", "is_dry", "sizes"])
    options = parser.parse_args(["--path", "a", "--kind", "short"])
    assert not hasattr(options, "limit") and not hasattr(options, "is_dry")
    assert read_config(Outer, options) == Outer(path=Path("a"), kind="short")


def test_each_field_is_a_flag_of_its_name_and_type():
    flags = ["--path", "a", "--kind", "short", "--is-dry", "--names", "x, y", "--names", "z"]
    flags += ["--limit", "9", "--num-rounds", "3", "--rate", "0.5", "--wait", "2m"]
    assert read(*flags, hidden=8) == Outer(
        path=Path("a"),
        kind="short",
        is_dry=True,
        names=("x, y", "z"),
        limit=9,
        wait_s=120.0,
        hidden=8,
        inner=Inner(num_rounds=3, rate=0.5),
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--path"),
        (["--path", "a", "--kind", "huge"], "invalid choice: 'huge'"),
        (["--path", "a", "--limit", "some"], "invalid int value: 'some'"),
        (["--path", "a", "--wait", "2"], "argument --wait: '2' is not in minutes"),
        (["--path", "a", "--wait-s", "2"], "unrecognized arguments: --wait-s 2"),
        (["--path", "a", "--hidden", "1"], "unrecognized arguments: --hidden 1"),
    ],
)
def test_what_a_field_cannot_be_is_refused(capsys, flags, message):
    with pytest.raises(SystemExit):
        read(*flags)
    assert message in capsys.readouterr().err


def test_a_value_that_makes_no_sense_is_refused_by_its_flag():
    with pytest.raises(InputError, match="--num-rounds 0: give at least 1"):
        read("--path", "a", "--num-rounds", "0")
    with pytest.raises(InputError, match="--wait 0: give at least 1"):
        read("--path", "a", "--wait", "0m")


def test_help_has_the_meaning_and_the_default_of_every_flag():
    text = " ".join(make_parser().format_help().split())
    for line in (
        "--path PATH what to read",
        "--kind {long,short} how long (long)",
        "--is-dry do nothing",
        "--names A,B of columns",
        "--limit ROWS only the first rows",
        "--wait NUMBER how long",
        "--num-rounds N rounds of all (5)",
        "--rate NUMBER share (100% is 1) a round (0.001)",
        "--small NUMBER rate of a step (5e-5)",
        "--sizes A,B of what is tried (10,200)",
    ):
        assert line in text
