import itertools
import re
from pathlib import Path

import pytest

from fastformers.jobs.benchmarks.parts import NotRun
from fastformers.jobs.benchmarks.peers.run_baseline import JobRun
from fastformers.jobs.benchmarks.peers.texts import DifferentTexts, Part
from fastformers.jobs.benchmarks.peers.turns import TurnSettings, run_in_turns

LEFT_OUT = NotRun(reason="--peers leaves it out")


class Texts(DifferentTexts):
    """Texts whose parts are no files."""

    def part(self, num_rows, *, num_workers):
        ids = tuple(range(min(num_rows, len(self.texts))))
        return Part(directory=Path(), files=(), ids=ids)


class Job:
    """A job of a given rate, each run of which may have another."""

    def __init__(self, name, rates, order, *, label="good", fixed_s=0.0):
        self.name, self.order, self.label, self.fixed_s = name, order, label, fixed_s
        self.rates = itertools.chain(rates, itertools.repeat(rates[-1]))

    def __call__(self, part):
        self.order.append((self.name, part.num_rows))
        rate = next(self.rates)
        if isinstance(rate, NotRun):
            return rate
        return JobRun(
            rows=part.num_rows,
            seconds=self.fixed_s + part.num_rows / rate,
            startup_s=4.0,
            setting=f"as {self.name}",
            versions={"ray": "2"},
            labels=dict.fromkeys(part.ids, self.label) if self.label else {},
        )


@pytest.fixture
def texts():
    return Texts(texts=["x"] * 100_000, labels=None, directory=Path())


def run(
    ours, others, texts, *, min_seconds=60.0, repeats=3, true_labels=None, log=lambda line: None
):
    settings = TurnSettings(min_seconds=min_seconds, repeats=repeats, num_workers=2)
    return run_in_turns(ours, others, texts, settings, true_labels=true_labels, log=log)


def test_jobs_take_turns_each_on_texts_for_as_long_as_is_asked(texts):
    order = []
    ours = Job("ours", [100.0, 100.0, 120.0, 110.0], order)
    guide = Job("guide", [20.0, 20.0, 30.0, 10.0], order, label=None)
    part = run(ours, {"ray-guide": guide}, texts)
    assert order[:2] == [("ours", 1000), ("guide", 1000)]
    assert order[2:] == [("ours", 7500), ("guide", 1500)] * 3
    assert (part.ours.rows_per_second, part.ours.rows) == (pytest.approx(110.0), 7500)
    found = part.by_name["ray-guide"]
    assert found.rows_per_second_by_turn == pytest.approx((20.0, 30.0, 10.0))
    assert (found.seconds, found.startup_s) == (pytest.approx(75.0), 4.0)
    assert (found.setting, found.versions, found.accuracy) == ("as guide", {"ray": "2"}, None)
    ratio = part.our_ratio("ray-guide")
    assert (ratio.value, ratio.least, ratio.most) == pytest.approx((5.0, 4.0, 11.0))
    assert part.by_name["vllm"] == LEFT_OUT
    assert part.fastest("ray-data") == "ray-guide"
    assert part.fastest("sentence-transformers") == LEFT_OUT


def test_a_first_run_that_is_too_short_to_tell_is_made_longer(texts):
    """A second of work that no row causes hides the rate of a short run."""
    order = []
    run(Job("ours", [1000.0], order, fixed_s=1.0), {}, texts, repeats=1)
    first, *longer, turn = (rows for _, rows in order)
    assert first == 1000
    assert min(longer) > 2 * first
    assert 1.0 + turn / 1000.0 >= 60.0


def test_a_turn_that_is_too_short_is_made_longer_for_all_turns(texts):
    """Five seconds to load a model hide half of the rate of a first run that lasts ten."""
    order, lines = [], []
    part = run(Job("ours", [200.0], order, fixed_s=5.0), {}, texts, log=lines.append)
    first, short, *turns = (rows for _, rows in order)
    assert (first, 5.0 + short / 200.0 < 60.0) == (1000, True)
    assert len(turns) == 3
    assert len({*turns}) == 1
    assert part.ours.rows == turns[0]
    assert part.ours.seconds >= 60.0
    assert len(part.ours.rows_per_second_by_turn) == 3
    assert f"fastformers: too short; once more on {turns[0]:,} rows" in lines


def test_a_corpus_that_is_too_small_is_run_whole_and_that_is_said():
    lines, order = [], []
    small = Texts(texts=["x"] * 3000, labels=None, directory=Path())
    part = run(Job("ours", [100.0], order), {}, small, log=lines.append)
    assert part.ours.rows == 3000
    assert any(
        re.search(r"fastformers: all 3,000 texts last 30 s of 60; .*CORPUS or --peer-rows", line)
        for line in lines
    )


@pytest.mark.parametrize("runs", [[NotRun(reason="no ray")], [20.0, 20.0, NotRun(reason="no ray")]])
def test_a_job_that_fails_once_did_not_run(texts, runs):
    order, lines = [], []
    others = {"ray-guide": Job("guide", runs, order), "vllm": NotRun(reason="no wheel")}
    part = run(Job("ours", [100.0], order), others, texts, log=lines.append)
    assert part.by_name["ray-guide"] == NotRun(reason="no ray")
    assert part.by_name["vllm"] == NotRun(reason="no wheel")
    assert part.our_ratio("vllm") == NotRun(reason="no wheel")
    assert [name for name, _ in order].count("guide") == len(runs)
    assert [name for name, _ in order].count("ours") == 4


def test_accuracy_is_of_the_rows_that_were_scored(texts):
    order = []
    true_labels = ["good", "bad", "bad", "bad"] * 25_000
    others = {
        "fasttext": Job("fasttext", [100.0], order, label="bad"),
        "vllm": Job("vllm", [100.0], order, label=None),
    }
    part = run(Job("ours", [100.0], order), others, texts, true_labels=true_labels, repeats=1)
    assert part.ours.accuracy == 0.25
    assert part.by_name["fasttext"].accuracy == 0.75
    assert part.by_name["vllm"].accuracy is None
