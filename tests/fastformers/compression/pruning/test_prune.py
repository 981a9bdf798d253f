import copy
from dataclasses import replace

import numpy as np
import pytest

from fastformers.compression.pruning.pruning_plan import PruningPlan, plan_pruning
from fastformers.errors import InputError, StageError
from fastformers.export.graph import write_graph
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.tokenizer import TokenizedRows, Tokenizer
from fastformers.models.architectures import architecture_of
from fastformers.models.layers import LayerShape

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.compression.pruning import prune as prune_module  # noqa: E402
from fastformers.compression.pruning.prune import measure_importance, prune_model, shapes_after  # noqa: E402
from fastformers.export.read_encoder import read_encoder  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.layers import layer_parts, layer_shape  # noqa: E402
from fastformers.models.loading import load_model  # noqa: E402
from fastformers.models.sentence_encoder import SentenceEncoder  # noqa: E402

UNEVEN = PruningPlan(
    heads=(np.array([0, 2, 3]), np.array([1]), np.array([0, 1, 2, 3])),
    neurons=(np.arange(16, 48), np.array([0, 7, 40, 47]), np.arange(48)),
)
UNEVEN_AGAIN = PruningPlan(  # indices into what UNEVEN leaves
    heads=(np.array([1, 2]), np.array([0]), np.array([3])),
    neurons=(np.arange(0, 32, 2), np.array([1, 2]), np.arange(30)),
)
LABELS_N = np.arange(24) % 3


@pytest.fixture
def make_bert(make_teacher):
    """A model that UNEVEN is a plan for."""
    shape = {"num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    return lambda: make_teacher(labels=("a", "b", "c"), **shape)


@pytest.fixture
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=24).encode(make_texts(24))


@pytest.fixture
def one_length():
    """Four rows of nine tokens."""
    return TokenizedRows(
        ids=np.random.default_rng(0).integers(5, 30, 36).astype(np.uint16),
        offsets=np.arange(0, 45, 9),
        second_lengths_N=np.zeros(4, np.uint16),
    )


@pytest.fixture
def pairs(tokenizer_json, make_texts):
    tokenizer = Tokenizer(tokenizer_json, max_length=48)
    return tokenizer.encode(make_texts(24), make_texts(24, seed=1))


def check_graph(model, path, rows):
    """Check that a graph gives its model's logits, which differ between rows; return them."""
    write_graph(read_encoder(model), path, text_pairs=True)
    engine = OnnxEngine(path)
    logits_NC = predict_logits(model, rows)
    for row in range(len(rows)):
        this = np.array([row])
        logits_BC = engine.run(rows.batch_ids(this), rows.batch_types(this))
        np.testing.assert_allclose(logits_BC, logits_NC[this], atol=1e-4)
    assert logits_NC.std(axis=0).min() > 0.01
    return logits_NC


def masked(model, plan):
    """A copy of the model with zeros where `prune_model` removes."""
    model = copy.deepcopy(model)
    for layer, heads, neurons in zip(layer_parts(model), plan.heads, plan.neurons, strict=True):
        gone = np.setdiff1d(np.arange(layer.num_heads), heads)
        columns = (gone[:, None] * layer.head_width + np.arange(layer.head_width)).ravel()
        with torch.no_grad():
            layer.output.weight[:, columns] = 0
            layer.down.weight[:, np.setdiff1d(np.arange(layer.up.out_features), neurons)] = 0
    return model


def check_same_weights(model, other):
    weights, expected = model.state_dict(), other.state_dict()
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=0)


def num_heads_known(layer):
    return getattr(layer.attention, layer.num_heads_name)


def test_a_pruned_model_exports_saves_loads_and_prunes_again(make_prunable, pairs, tmp_path):
    model = make_prunable()
    pruned = prune_model(model, UNEVEN)
    expected_NC = predict_logits(masked(model, UNEVEN), pairs)
    logits_NC = check_graph(pruned, tmp_path / "pruned.onnx", pairs)
    np.testing.assert_allclose(logits_NC, expected_NC, atol=1e-5)
    assert np.abs(logits_NC - predict_logits(model, pairs)).max() > 0.01

    pruned.save_pretrained(tmp_path / "pruned")
    loaded = load_model(tmp_path / "pruned")
    assert type(loaded) is type(model)
    check_same_weights(loaded, pruned)
    np.testing.assert_allclose(predict_logits(loaded, pairs), logits_NC, atol=1e-5)

    again = prune_model(loaded, UNEVEN_AGAIN)
    assert list(map(layer_shape, layer_parts(again))) == shapes_after(UNEVEN_AGAIN)
    assert [num_heads_known(layer) for layer in layer_parts(again)] == [2, 1, 1]
    logits_NC = check_graph(again, tmp_path / "again.onnx", pairs)
    expected_NC = predict_logits(masked(loaded, UNEVEN_AGAIN), pairs)
    np.testing.assert_allclose(logits_NC, expected_NC, atol=1e-5)
    again.save_pretrained(tmp_path / "again")
    check_same_weights(load_model(tmp_path / "again"), again)


def test_pruned_matrices_are_smaller_and_the_model_given_is_not(make_prunable):
    model = make_prunable()
    before = copy.deepcopy(model)
    pruned = prune_model(model, UNEVEN)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in model.parameters())
    first = layer_parts(pruned)[0]
    assert first.query.weight.shape == first.value.weight.shape == (24, 32)
    assert first.output.weight.shape == (32, 24)
    assert first.up.weight.shape == (32, 32)
    assert first.down.weight.shape == (32, 32)
    assert (first.key.out_features, first.output.in_features) == (24, 24)
    check_same_weights(model, before)
    assert not hasattr(model.config, "pruned_layers")


def test_a_pruned_model_runs_with_other_attention_and_learns(make_prunable, rows):
    pruned = prune_model(make_prunable(), UNEVEN)
    fused_NC = predict_logits(pruned, rows)
    pruned.set_attn_implementation("eager")
    np.testing.assert_allclose(predict_logits(pruned, rows), fused_NC, atol=1e-5)

    pruned.set_attn_implementation("sdpa")
    ids_BT = torch.from_numpy(rows.slice(0, 1).batch_ids(np.array([0])))
    optimizer = torch.optim.Adam(pruned.parameters(), lr=1e-2)
    losses = []
    pruned.train()
    for _ in range(20):
        optimizer.zero_grad()
        loss = pruned(input_ids=ids_BT, labels=torch.tensor([2])).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0] + 0.05
    assert all(layer.query.weight.grad.abs().max() > 0 for layer in layer_parts(pruned))


@pytest.mark.parametrize("labels_N", [LABELS_N[:4], None], ids=["labels", "no labels"])
def test_importance_is_what_a_small_step_of_a_gate_does_to_the_loss(
    make_prunable, one_length, labels_N
):
    model = make_prunable(num_hidden_layers=2).double()
    importance = measure_importance(model, one_length, labels_N)
    ids_BT = torch.from_numpy(one_length.batch_ids(np.arange(4)))

    def difference(linear_name, columns):
        """Mean change of a row's loss by scaling the inputs `columns` in the first layer."""
        losses = []
        for scale in (1 + 1e-5, 1 - 1e-5):
            changed = copy.deepcopy(model)
            with torch.no_grad():
                getattr(layer_parts(changed)[0], linear_name).weight[:, columns] *= scale
                logits_NC = changed(ids_BT).logits
            if labels_N is None:
                centered_NC = logits_NC - logits_NC.mean(1, keepdim=True)
                losses.append(0.5 * centered_NC.square().sum(1))
            else:
                losses.append(
                    -logits_NC.log_softmax(1)[torch.arange(4), torch.from_numpy(labels_N)]
                )
        return float((losses[0] - losses[1]).abs().mean() / 2e-5)

    for head in (0, 3):
        expected = difference("output", slice(8 * head, 8 * head + 8))
        assert importance.heads[0][head] == pytest.approx(expected, rel=1e-3)
    expected = difference("down", slice(47, 48))
    assert importance.neurons[0][47] == pytest.approx(expected, rel=1e-3)
    assert len({round(float(value), 6) for value in importance.heads[0]}) == 4


def test_importance_of_a_hidden_dimension_is_what_scaling_it_everywhere_does(make_prunable, rows):
    model = make_prunable(num_hidden_layers=2).double()
    row = rows.slice(0, 1)
    importance = measure_importance(model, row, np.array([1]))
    ids_BT = torch.from_numpy(row.batch_ids(np.array([0])))

    def loss(scale):
        changed = copy.deepcopy(model)
        layers = layer_parts(changed)
        ends = [norm for layer in layers for norm in (layer.attention_norm, layer.ffn_norm)]
        base = changed.base_model
        ends.append(getattr(base, "embeddings_project", None) or base.embeddings.LayerNorm)
        final_norm = architecture_of(changed.config).final_norm(base)
        ends += [] if final_norm is None else [final_norm]
        with torch.no_grad():
            for end in ends:
                end.weight[5] *= scale
                end.bias[5] *= scale
            return -float(changed(ids_BT).logits.log_softmax(1)[0, 1])

    difference = abs(loss(1 + 1e-5) - loss(1 - 1e-5)) / 2e-5
    assert importance.hidden_D[5] == pytest.approx(difference, rel=1e-3)


def test_importance_to_an_embedding_is_that_to_its_vector_before_it_is_normalized(
    make_teacher, one_length
):
    encoder = make_teacher().base_model
    plain, unit = (
        measure_importance(
            SentenceEncoder(encoder, pooling="mean", normalize=normalize), one_length
        )
        for normalize in (False, True)
    )
    for ours, theirs in zip(unit.heads + unit.neurons, plain.heads + plain.neurons, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert min(heads.min() for heads in unit.heads) > 1e-3


def test_importance_of_neurons_is_gradient_times_weight(make_teacher, rows):
    model = make_teacher()
    row = rows.slice(0, 1)
    importance = measure_importance(model, row, np.array([1]))
    ids_BT = torch.from_numpy(row.batch_ids(np.array([0])))
    model = copy.deepcopy(model)
    model(ids_BT, labels=torch.tensor([1])).loss.backward()
    for layer, neurons in zip(layer_parts(model), importance.neurons, strict=True):
        taylor = (layer.down.weight * layer.down.weight.grad).sum(dim=0).abs()
        np.testing.assert_allclose(neurons, taylor.detach().numpy(), rtol=1e-3, atol=1e-6)


def test_importance_does_not_depend_on_batches_or_on_what_was_measured_before(
    make_teacher, pairs, monkeypatch
):
    model = make_teacher()
    labels_N = LABELS_N % 2
    model(
        torch.from_numpy(pairs.batch_ids(np.array([0]))), labels=torch.tensor([0])
    ).loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    together = measure_importance(model.train(), pairs, labels_N)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=0)
    monkeypatch.setattr(prune_module, "_BATCH_TOKENS", 1)
    alone = measure_importance(model.eval(), pairs, labels_N)
    for one, other in zip(
        (*together.heads, *together.neurons, together.hidden_D),
        (*alone.heads, *alone.neurons, alone.hidden_D),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_a_head_that_nothing_reads_goes_first(make_bert, rows):
    model = make_bert()
    idle_heads = [2, 0, 3]
    with torch.no_grad():
        for layer, head in zip(layer_parts(model), idle_heads, strict=True):
            layer.output.weight[:, 8 * head : 8 * head + 8] = 0
    importance = measure_importance(model, rows, LABELS_N)
    for heads, idle in zip(importance.heads, idle_heads, strict=True):
        assert heads[idle] == 0
        assert np.delete(heads, idle).min() > 0
    plan = plan_pruning(importance, prune_heads=0.25, prune_ffn=0)
    gone = [np.setdiff1d(np.arange(4), heads).tolist() for heads in plan.heads]
    assert gone == [[2], [0], [3]]
    pruned = prune_model(model, plan)
    np.testing.assert_allclose(predict_logits(pruned, rows), predict_logits(model, rows), atol=1e-5)


def test_neurons_that_nothing_reads_go_first_and_change_nothing(make_bert, rows):
    model = make_bert()
    idle = np.random.default_rng(0).permutation(48)[:16]
    with torch.no_grad():
        for layer in layer_parts(model):
            layer.down.weight[:, idle] = 0
    importance = measure_importance(model, rows)
    plan = plan_pruning(importance, prune_heads=0, prune_ffn=1 / 3)
    assert shapes_after(plan) == [LayerShape(num_heads=4, ffn_width=32)] * 3
    pruned = prune_model(model, plan)
    np.testing.assert_allclose(predict_logits(pruned, rows), predict_logits(model, rows), atol=1e-5)


def test_rounds_through_the_disk_know_what_the_model_once_was(make_bert, rows, tmp_path):
    model = make_bert()
    for share, num_heads, ffn_width in ((0.25, 3, 32), (0.5, 2, 16)):
        importance = measure_importance(model, rows, LABELS_N)
        assert (importance.num_heads, importance.ffn_width) == (4, 48)
        plan = plan_pruning(importance, prune_heads=share, prune_ffn=share)
        prune_model(model, plan).save_pretrained(tmp_path)
        model = load_model(tmp_path)
        shape = LayerShape(num_heads=num_heads, ffn_width=ffn_width)
        assert list(map(layer_shape, layer_parts(model))) == [shape] * 3


def test_a_single_output_is_important_by_itself(make_teacher, rows):
    model = make_teacher(labels=("score",))
    assert measure_importance(model, rows).heads[0].min() > 0


def test_progress_counts_rows(make_teacher, rows):
    seen = []
    measure_importance(make_teacher(), rows, on_progress=lambda *progress: seen.append(progress))
    assert seen[-1] == ("importance", 24, 24)
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})


def test_no_rows_are_refused(make_teacher, rows):
    with pytest.raises(InputError, match="no training rows"):
        measure_importance(make_teacher(), rows.slice(0, 0))


def test_a_broken_model_is_not_ranked(make_teacher, rows):
    model = make_teacher()
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    with pytest.raises(StageError, match="no finite gradient"):
        measure_importance(model, rows)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (PruningPlan(heads=UNEVEN.heads[:2], neurons=UNEVEN.neurons[:2]), "for 2 layers; .* has 3"),
        (replace(UNEVEN, heads=(np.array([4]), *UNEVEN.heads[1:])), "a layer has 4 heads"),
        (replace(UNEVEN, neurons=(np.array([48]), *UNEVEN.neurons[1:])), "has 48 neurons"),
        (replace(UNEVEN, heads=(np.array([], int), *UNEVEN.heads[1:])), "a layer has 4 heads"),
    ],
    ids=["layers", "heads", "neurons", "no heads"],
)
def test_a_plan_for_another_model_is_refused(make_bert, plan, message):
    model = make_bert()
    with pytest.raises(InputError, match=message):
        prune_model(model, plan)


def test_another_architecture_is_refused_by_name(rows):
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=9)
    model = transformers.GPT2ForSequenceClassification(config)
    with pytest.raises(
        InputError, match=r"'gpt2' can be neither pruned nor cut; .*bert, distilbert"
    ):
        measure_importance(model, rows)
