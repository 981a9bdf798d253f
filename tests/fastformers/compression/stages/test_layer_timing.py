import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastformers.data.examples import Examples

torch = pytest.importorskip("torch")

from fastformers.compression.artifact import ModelArtifact  # noqa: E402
from fastformers.compression.quality import QualityGate  # noqa: E402
from fastformers.compression.recipe import run_recipe  # noqa: E402
from fastformers.compression.recipe_config import DistillConfig, PruneConfig  # noqa: E402
from fastformers.compression.stages import layer_timing, prune_planning  # noqa: E402
from fastformers.compression.stages.layer_timing import keep_layer_times, pick_lengths  # noqa: E402
from fastformers.compression.stages.reducing_stages import prune_stage  # noqa: E402
from fastformers.errors import FastformersError  # noqa: E402
from fastformers.models.layers import layer_parts, layer_shape  # noqa: E402
from fastformers.models.variants.reduced_layers import change_reduction  # noqa: E402
from fastformers.models.variants.token_reduction import TokenPool, reduction_of  # noqa: E402


@pytest.fixture(autouse=True)
def few_turns(monkeypatch):
    monkeypatch.setattr(layer_timing, "_TURNS", 1)


@pytest.fixture
def artifact(make_teacher, tokenizer_json, make_texts, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    return ModelArtifact(
        key="teacher",
        model=make_teacher(labels=("no", "yes"), num_attention_heads=4),
        tokenizer_json=tokenizer_json,
        max_length=32,
        text_pairs=False,
        train=Examples(texts=make_texts(64, seed=1), text_pairs=None, labels=["no", "yes"] * 32),
        train_path=Path("train.csv"),
        work=work,
    )


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "float32"])
def test_times_are_of_every_size_and_grow_with_it(artifact, precision):
    times = keep_layer_times(artifact, precision)
    assert times.heads.sizes == times.last_heads.sizes == (1, 2, 3, 4)
    assert times.neurons.sizes[0] == 16 and times.neurons.sizes[-1] == 64
    for part in (times.heads, times.neurons, times.last_heads, times.last_neurons):
        assert part.ticks[0] == 0
        assert list(part.ticks) == sorted(part.ticks)
    assert times.heads.ticks[-1] + times.neurons.ticks[-1] == pytest.approx(1000, abs=2)
    assert 0 < times.tick_s < times.whole_s < 1


def test_times_are_measured_once_for_a_model_and_its_lengths(artifact, monkeypatch):
    first = keep_layer_times(artifact, "int8")

    def refuse(*arguments, **options):
        raise FastformersError("measured again")

    monkeypatch.setattr(layer_timing, "measure_layer_times", refuse)
    assert keep_layer_times(artifact, "int8") == first
    with pytest.raises(FastformersError, match="again"):
        keep_layer_times(artifact, "float32")
    monkeypatch.setattr(layer_timing, "GRAPH_VERSION", layer_timing.GRAPH_VERSION + 1)
    with pytest.raises(FastformersError, match="again"):
        keep_layer_times(artifact, "int8")


def test_tokens_are_chosen_as_they_will_be_when_they_are_dropped(artifact, monkeypatch):
    seen, measure = [], layer_timing.measure_layer_times

    def record(encoder, *arguments, **options):
        seen.append(encoder)
        return measure(encoder, *arguments, **options)

    monkeypatch.setattr(layer_timing, "measure_layer_times", record)
    keep_layer_times(artifact, "int8", (0.5,))
    assert [layer.keep_share for layer in seen[0].layers] == [0.5, 1.0]
    assert seen[0].layers[0].significance_D is not None


def test_lengths_stand_for_equal_shares_of_the_tokens():
    assert pick_lengths(np.array([10] * 6 + [30] * 2 + [60])) == (10, 30, 60)
    assert pick_lengths(np.array([7, 7, 7])) == (7, 7, 7)
    assert pick_lengths(np.array([500])) == (500, 500, 500)


def prune(artifact, directory, **changes):
    config = PruneConfig(prune_heads=0.5, prune_ffn=0.5, prune_epochs=0, **changes)
    stage = prune_stage(config, DistillConfig(), None, precision="int8")
    measured = stage.measure(artifact, lambda *progress: None)
    return measured, stage.run(artifact, directory, lambda *progress: None)


def test_a_stage_that_is_resumed_decides_as_it_did(artifact, tmp_path, monkeypatch):
    """Neither times nor importance are measured again, which might come out otherwise."""
    measured, first = prune(artifact, tmp_path, prune_budget="latency")
    [path] = artifact.work.glob("layer-times-*.json")
    assert measured["times"] == json.loads(path.read_text(), object_hook=with_tuples)
    monkeypatch.setattr(prune_planning, "measure_importance", None)
    monkeypatch.setattr(layer_timing, "measure_layer_times", None)
    again, second = prune(artifact, tmp_path, prune_budget="latency")
    assert (again, second.pruning) == (measured, first.pruning)
    assert shapes(second) == shapes(first)
    for name, weights in first.model.state_dict().items():
        assert torch.equal(weights, second.model.state_dict()[name])


def test_only_a_budget_of_time_is_measured(artifact, tmp_path):
    measured, pruned = prune(artifact, tmp_path)
    assert measured == {}
    assert pruned.pruning == "heads 2, 2; neurons 32, 32"


def test_the_last_layer_keeps_neurons_that_cost_next_to_nothing(artifact, tmp_path):
    """They are computed for the first token alone, where the classifier reads no other."""
    keep_layer_times(artifact, "int8")
    [path] = artifact.work.glob("layer-times-*.json")
    times = json.loads(path.read_text())
    times["last_neurons"]["ticks"] = [0] * len(times["last_neurons"]["ticks"])
    path.write_text(json.dumps(times))
    _, pruned = prune(artifact, tmp_path, prune_budget="latency")
    assert shapes(pruned)[-1].ffn_width == 64
    assert "times as fast" in pruned.pruning


def test_what_was_pruned_is_kept_with_the_result(artifact, tmp_path):
    gate = QualityGate(artifact, artifact.train, Path("eval.csv"), max_accuracy_drop=100.0)
    config = PruneConfig(prune_heads=0.5, prune_ffn=0.5, prune_epochs=0)
    stages = [prune_stage(config, DistillConfig(), None, precision="int8")]
    for _ in ("made", "read"):
        last, _ = run_recipe(artifact, stages, gate)
        assert last.pruning == "heads 2, 2; neurons 32, 32"


def shapes(artifact):
    return [layer_shape(parts) for parts in layer_parts(artifact.model)]


def with_tuples(fields):
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }


def test_tokens_that_are_dropped_or_pooled_cost_later_layers_nothing(artifact):
    whole = keep_layer_times(artifact, "int8")
    assert whole.token_shares == ()
    fewer = keep_layer_times(artifact, "int8", keep_shares=(0.5,))
    assert fewer.token_shares == ((1.0, 0.5), (0.5, 0.5))
    heads, neurons = fewer.parts_of(0, 2)
    assert (heads, neurons.ticks[-1]) == (fewer.heads, round(fewer.neurons.ticks[-1] / 2))
    pool = TokenPool(before_layer=1, every=4, how="mean")
    change_reduction(artifact.model, replace(reduction_of(artifact.model.config), pool=pool))
    pooled = keep_layer_times(artifact, "int8")
    assert pooled.token_shares == ((1.0, 1.0), (0.25, 0.25))
