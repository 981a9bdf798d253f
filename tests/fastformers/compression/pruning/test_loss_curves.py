import numpy as np
import pytest

from fastformers.compression.pruning.pruning_plan import PruningPlan, top_positions
from fastformers.inference.tokenizer import Tokenizer

torch = pytest.importorskip("torch")

from fastformers.compression.pruning.loss_curves import measure_loss_curves  # noqa: E402
from fastformers.compression.pruning.prune import measure_importance, prune_model  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.loading import task_of  # noqa: E402
from fastformers.models.losses import soft_loss  # noqa: E402


@pytest.fixture
def model(make_teacher):
    return make_teacher(labels=("a", "b", "c"), num_attention_heads=4)


@pytest.fixture
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=24).encode(make_texts(24))


def measure(model, rows, *, of_heads=True, of_neurons=True):
    importance = measure_importance(model, rows)
    curves = measure_loss_curves(model, rows, importance, of_heads=of_heads, of_neurons=of_neurons)
    return importance, curves


def test_a_curve_has_the_loss_of_a_model_whose_one_part_is_pruned(model, rows):
    importance, curves = measure(model, rows)
    before_NC = torch.from_numpy(predict_logits(model, rows))

    def loss_of(layer, num_heads, num_neurons):
        heads, neurons = [np.arange(4)] * 2, [np.arange(64)] * 2
        heads[layer] = top_positions(importance.heads[layer], num_heads)
        neurons[layer] = top_positions(importance.neurons[layer], num_neurons)
        pruned = prune_model(model, PruningPlan(heads=tuple(heads), neurons=tuple(neurons)))
        after_NC = torch.from_numpy(predict_logits(pruned, rows))
        return float(soft_loss(after_NC, before_NC, task_of(model), temperature=1.0).mean())

    for layer in range(2):
        heads, neurons = curves.heads[layer], curves.neurons[layer]
        assert heads.sizes == (1, 2, 3, 4)
        assert neurons.sizes == (8, 16, 32, 48, 64)
        assert (heads.losses[-1], neurons.losses[-1]) == (0, 0)
        # bf16, and what is smoothed away where a larger part lost more.
        least = min(loss_of(layer, size, 64) for size in (1, 2))
        assert heads.losses[1] == pytest.approx(least, rel=0.1, abs=1e-3)
        least = min(loss_of(layer, 4, size) for size in (8, 16, 32))
        assert neurons.losses[2] == pytest.approx(least, rel=0.1, abs=1e-3)
        assert heads.losses[0] > 1e-3 < neurons.losses[0]


def test_the_model_stays_as_it_was(model, rows):
    before_NC = predict_logits(model, rows)
    measure(model, rows)
    np.testing.assert_array_equal(predict_logits(model, rows), before_NC)


def test_a_part_that_stays_whole_is_not_measured(model, rows):
    ran = []
    importance = measure_importance(model, rows)
    curves = measure_loss_curves(
        model,
        rows,
        importance,
        of_heads=False,
        of_neurons=True,
        on_progress=lambda what, done, total: ran.append((done, total)) if "size" in what else None,
    )
    assert curves.heads[0].sizes == (4,)
    assert ran == [(done, 8) for done in range(1, 9)]


def test_sizes_are_spread_over_a_part_from_its_least_on(make_teacher, rows):
    model = make_teacher(num_attention_heads=8, intermediate_size=8)
    left = PruningPlan(heads=(np.arange(1), np.arange(8)), neurons=(np.arange(8), np.arange(8)))
    _, curves = measure(prune_model(model, left), rows)
    assert [curve.sizes for curve in curves.heads] == [(1,), (1, 2, 4, 6, 8)]
    assert [curve.sizes for curve in curves.neurons] == [(1, 2, 4, 6, 8)] * 2
