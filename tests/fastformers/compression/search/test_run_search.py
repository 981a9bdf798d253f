"""A search with made-up candidates: what is run, left out, stopped and told."""

from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="the extra compress is not installed")

from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.search import run_search
from fastformers.compression.search.durations import Work
from fastformers.compression.search.run_search import search
from fastformers.errors import QualityError, StageError
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.models.forward import StoppedError


class Hours:
    """Predicts an hour for every layer that is trained."""

    mean_tokens = 20.0

    def __init__(self, teacher, transfer):
        pass

    def plan_work(self, config, stages):
        return config.student.student_layers or 0

    def predict(self, work):
        return 0.0 if isinstance(work, Work) else 3600.0 * work

    def learn(self, work, seconds, timer):
        pass


def candidate(shape, *, passes, seconds_per_million):
    quality = StageQuality(
        stage="quantize", quality=0.9, agreement=0.9, num_rows=9, model_bytes=9, seconds=1
    )
    joined = SimpleNamespace(shape="joined", passes=True, seconds_per_million=0.1, drop=0.6)
    return SimpleNamespace(
        shape=shape,
        artifact=shape,
        name=str(shape),
        passes=passes,
        seconds_per_million=seconds_per_million,
        drop=0.5,
        quality=quality,
        qualities=(quality,),
        followed_by=lambda made, gate: joined,
        as_second=lambda: shape,
    )


@pytest.fixture
def run(monkeypatch):
    """Search from a teacher of six layers; a candidate passes if it has enough of them."""
    monkeypatch.setattr(run_search, "Durations", Hours)

    def search_from(least, *, model_type="bert", max_hours=None, stop=(), fail=(), **options):
        def evaluate(teacher, config, gate, *, transfer, on_progress):
            layers = config.student.student_layers
            layers = 6 if layers is None else layers
            shape = layers, config.prune.prune_ffn
            if shape in stop:
                raise StoppedError("distill")
            if shape in fail:
                raise StageError("it diverged")
            return candidate(
                shape,
                passes=layers >= least,
                seconds_per_million=layers * (1 - config.prune.prune_ffn),
            )

        monkeypatch.setattr(run_search, "evaluate_candidate", evaluate)
        monkeypatch.setattr(run_search, "_can_drop_tokens", lambda teacher, base: False)
        monkeypatch.setattr(run_search, "reads_all_tokens", lambda model: False)
        config = SimpleNamespace(
            num_hidden_layers=6, model_type=model_type, problem_type=None, num_labels=2
        )
        teacher = SimpleNamespace(model=SimpleNamespace(config=config))
        gate = SimpleNamespace(max_accuracy_drop=1.0, how_to_go_on="; go on")
        return search(teacher, RecipeConfig(), gate, transfer=None, max_hours=max_hours, **options)

    return search_from


def shapes(result):
    return [candidate.shape for candidate in result.candidates]


def test_the_cheapest_that_passes_is_chosen(run):
    seen = []
    result = run(4, on_candidate=seen.append)
    assert result.chosen.shape == (4, 0.75)
    assert shapes(result)[:4] == [(6, 0), (0, 0), (4, 0), (3, 0)]
    assert seen == result.candidates and result.left_out == []


def test_nothing_passes(run):
    with pytest.raises(QualityError, match="quantize of the teacher itself loses more than"):
        run(7)


@pytest.mark.parametrize("model_type", ["modernbert", "mpnet", "deberta-v2"])
def test_a_model_that_cannot_be_cut_is_searched_as_it_is(run, caplog, model_type):
    assert shapes(run(1, model_type=model_type)) == [(6, 0), (0, 0)]
    (line,) = caplog.messages
    assert line.startswith("the search tries int8 of the teacher and static vectors alone: ")
    assert f"'{model_type}' can be neither pruned nor cut" in line


def test_what_does_not_fit_is_left_out_and_the_rest_is_run(run):
    result = run(1, max_hours=2.5)
    assert [(left.name, left.predicted_s, left.why) for left in result.left_out] == [
        ("4 layers, int8", 4 * 3600, "no time"),
        ("3 layers, int8", 3 * 3600, "no time"),
    ]
    assert shapes(result)[:4] == [(6, 0), (0, 0), (2, 0), (1, 0)]
    assert result.chosen.shape == (1, 0.75)


def test_a_candidate_that_was_stopped_is_left_out_and_the_search_goes_on(run):
    result = run(1, max_hours=10, stop=[(3, 0)])
    assert [(left.name, left.why) for left in result.left_out] == [("3 layers, int8", "stopped")]
    assert (2, 0) in shapes(result)


def test_a_candidate_that_cannot_be_made_is_left_out_and_says_why(run):
    result = run(1, fail=[(3, 0)])
    (left,) = result.left_out
    assert (left.name, left.why, left.reason) == ("3 layers, int8", "failed", "it diverged")
    with pytest.raises(StageError, match="it diverged"):
        run(1, fail=[(6, 0)])


def test_a_cascade_is_made_of_measured_candidates_and_may_be_chosen(run, monkeypatch):
    made = []

    def make_cascade(first, stage, second, gate, *, max_drop):
        made.append((first, stage, second, gate.max_accuracy_drop, max_drop))
        if len(made) > 1:
            raise QualityError("costs more than the second graph alone")
        return "made"

    monkeypatch.setattr(run_search, "make_cascade", make_cascade)
    result = run(4, with_cascades=True)
    # Static vectors cost nothing here; pruning passes, and the teacher loses as much as all do.
    assert made == [((0, 0), "quantize", (4, 0.75), 1.0, pytest.approx(0.5))]
    assert result.chosen.shape == "joined" and result.candidates[-1] is result.chosen


def test_before_each_candidate_it_is_told_how_much_is_to_come(run):
    told = []
    run(4, on_plan=told.append)
    told = told[:4]
    assert [(one.num_tried, one.num_expected) for one in told] == [(0, 8), (1, 7), (2, 6), (3, 5)]
    # 4 + 3 + 2 + 1 layers and two prunings of the last; then one less each.
    assert [one.expected_s / 3600 for one in told] == [12, 12, 12, 8]
    told = []
    run(1, max_hours=5, on_plan=told.append)
    assert told[1].expected_s == pytest.approx(5 * 3600, abs=5)
