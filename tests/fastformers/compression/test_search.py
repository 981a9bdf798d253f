from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="the extra compress is not installed")

from fastformers.compression import search as search_module
from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.search import PRUNING_SHARES, search
from fastformers.errors import QualityError


@pytest.fixture
def run_search(monkeypatch):
    """Search from a teacher of six layers; (layers, share of pruned neurons) of each candidate."""

    def run(passes, model_type="bert"):
        def evaluate(teacher, config, gate, **options):
            shape = config.student.student_layers or 6, config.prune.prune_ffn
            return SimpleNamespace(
                shape=shape,
                passes=passes(*shape),
                seconds_per_million=shape[0] * (1 - shape[1]),
                qualities=(SimpleNamespace(stage="quantize"),),
            )

        monkeypatch.setattr(search_module, "evaluate_candidate", evaluate)
        model = SimpleNamespace(
            config=SimpleNamespace(
                num_hidden_layers=6, model_type=model_type, problem_type=None, num_labels=2
            )
        )
        gate = SimpleNamespace(max_accuracy_drop=1.0, how_to_go_on="; go on")
        chosen, tried = search(SimpleNamespace(model=model), RecipeConfig(), gate, transfer=None)
        return chosen.shape, [candidate.shape for candidate in tried]

    return run


@pytest.mark.parametrize(
    ("most", "pruned"),
    [
        (0.1, [0.67, 0.5, 0.25]),
        (0.25, [0.67, 0.5, 0.25]),
        (0.5, [0.67, 0.5]),
        (0.67, [0.67, 0.75]),
        (0.75, [0.67, 0.75]),
    ],
)
def test_how_far_pruning_may_go_is_found_by_bisection(run_search, most, pruned):
    chosen, tried = run_search(lambda layers, ffn: layers >= 4 and ffn <= most)
    assert tried == [(6, 0), (4, 0), (3, 0), *((4, ffn) for ffn in pruned)]
    passed = [ffn for _, ffn in PRUNING_SHARES if ffn <= most]
    assert chosen == (4, max(passed, default=0))


def test_students_get_shallower_until_one_loses_too_much(run_search):
    chosen, tried = run_search(lambda layers, ffn: layers >= 2 and ffn == 0)
    assert chosen == (2, 0)
    assert tried[:5] == [(6, 0), (4, 0), (3, 0), (2, 0), (1, 0)]
    assert {layers for layers, ffn in tried if ffn} == {2}


def test_a_teacher_that_loses_too_much_in_int8_ends_the_search(run_search):
    with pytest.raises(QualityError, match="quantize of the teacher itself loses more than"):
        run_search(lambda layers, ffn: False)


@pytest.mark.parametrize("model_type", ["modernbert", "mpnet", "deberta-v2"])
def test_a_model_that_cannot_be_cut_is_searched_as_it_is(run_search, caplog, model_type):
    chosen, tried = run_search(lambda layers, ffn: True, model_type)
    assert (chosen, tried) == ((6, 0), [(6, 0)])
    (line,) = caplog.messages
    assert line.startswith("the search tries int8 of the teacher alone: ")
    assert f"'{model_type}' can be neither pruned nor cut" in line
