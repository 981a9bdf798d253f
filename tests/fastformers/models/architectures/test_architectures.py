import numpy as np
import pytest

from fastformers.errors import InputError
from tests.fastformers.conftest import ARCHITECTURES as WITH_LAYERS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
nn = torch.nn

from fastformers.compression.pruning.prune import measure_importance  # noqa: E402
from fastformers.compression.students.distill import replace_gelu  # noqa: E402
from fastformers.compression.students.student import cut_layers  # noqa: E402
from fastformers.models.architectures import (  # noqa: E402
    ARCHITECTURES,
    architecture_of,
    shrinkable_architecture_of,
)
from fastformers.models.architectures.architecture import (  # noqa: E402
    split_linear,
)
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.trainer import without_attention_dropout  # noqa: E402
from tests.fastformers.models.architectures.graphs import check_graph  # noqa: E402

every_architecture = pytest.mark.parametrize("model_type", WITH_LAYERS)
WIDTH, NUM_HEADS, FFN_WIDTH, NUM_LABELS = 32, 2, 64, 3
# Weights that are in tables by offset, and so in no part.
OFFSET_WEIGHTS = {
    "mpnet": {"mpnet.encoder.relative_attention_bias.weight"},
    "deberta-v2": {
        f"deberta.encoder.{name}"
        for name in ("rel_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")
    },
}


def make(make_model, model_type):
    return make_model(model_type, labels=("a", "b", "c"))


def layers_of(model):
    architecture = architecture_of(model.config)
    return architecture.parts_of(architecture.layers(model.base_model))


@every_architecture
def test_layers_have_the_shapes_of_the_configuration(make_model, model_type):
    model = make(make_model, model_type)
    layers = layers_of(model)
    assert len(layers) == model.config.num_hidden_layers
    for layer in layers:
        assert layer.num_heads == NUM_HEADS
        assert layer.head_width == WIDTH // NUM_HEADS
        for projection in (layer.query, layer.key, layer.value, layer.output):
            assert projection.weight.shape == (WIDTH, WIDTH)
        for projection in (layer.up, layer.gate):
            assert projection is None or projection.weight.shape == (FFN_WIDTH, WIDTH)
        assert layer.down.weight.shape == (WIDTH, FFN_WIDTH)
        assert all(norm.normalized_shape == (WIDTH,) for norm in layer.norms)
        assert callable(getattr(layer.activated, layer.activation_name))
    encoder = model.base_model
    assert len(architecture_of(model.config).offset_terms(encoder)) == len(layers)


@every_architecture
def test_every_weight_is_in_one_part(make_model, model_type):
    """The test names a projection or bias that a contributor has forgotten."""
    model = make(make_model, model_type)
    architecture, encoder = architecture_of(model.config), model.base_model
    embeddings, head = architecture.embeddings(encoder), architecture.head(model)
    parts = [*embeddings.tables, embeddings.norm, embeddings.projection]
    for layer in layers_of(model):
        parts += [value for value in vars(layer).values() if isinstance(value, nn.Linear)]
        parts += layer.norms
    parts += [architecture.final_norm(encoder), head.hidden, head.norm, head.output]
    found = [
        weight.data_ptr() for part in parts if part is not None for weight in part.parameters()
    ]
    assert len(found) == len(set(found))
    # A joined projection is found by its first part.
    missing = {name for name, weight in model.named_parameters() if weight.data_ptr() not in found}
    assert missing == OFFSET_WEIGHTS.get(model_type, set())


@every_architecture
def test_the_head_ends_in_the_labels_and_embeddings_in_the_first_layer(make_model, model_type):
    model = make(make_model, model_type)
    architecture = architecture_of(model.config)
    head = architecture.head(model)
    assert head.hidden.weight.shape == (WIDTH, WIDTH)
    assert head.output.weight.shape == (NUM_LABELS, WIDTH)
    seen = []
    embeddings = architecture.embeddings(model.base_model)
    embeddings.last.register_forward_hook(lambda module, inputs, output: seen.append(output))
    architecture.layers(model.base_model)[0].register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    with torch.no_grad():
        model(input_ids=torch.full((2, 5), 7))
    output_BTD, input_BTD = seen
    torch.testing.assert_close(output_BTD, input_BTD, atol=0, rtol=0)


@every_architecture
def test_settings_are_those_that_a_configuration_has(make_model, model_type):
    config = make(make_model, model_type).config
    architecture = architecture_of(config)
    for setting in (architecture.activation_setting, architecture.attention_dropout_setting):
        assert setting in config.to_dict()
    assert getattr(config, architecture.activation_setting) == "gelu"
    assert getattr(config, architecture.attention_dropout_setting) in (0.0, 0.1)
    for setting in architecture.layer_settings:
        assert len(getattr(config, setting)) == config.num_hidden_layers
    assert architecture.pooling(config) in ("first", "mean")
    if architecture.can_shrink:
        assert getattr(config, architecture.ffn_width_setting) == FFN_WIDTH
        assert getattr(config, architecture.embedding_width_setting) in (WIDTH, 128)


@every_architecture
def test_no_dropout_is_left_in_attention_without_it(make_model, model_type):
    config = make(make_model, model_type).config
    setting = architecture_of(config).attention_dropout_setting
    for dropout in (0.25, 0.0):
        model = make_model(model_type, **{setting: dropout})
        assert bool(attention_dropouts(model)) is (dropout > 0)
    assert without_attention_dropout(config) == {setting: 0.0}


def attention_dropouts(model):
    """Rates of the dropouts inside attention, if they are 0.25."""
    modules = [module for layer in layers_of(model) for module in layer.attention.modules()]
    shares = [module.p for module in modules if isinstance(module, nn.Dropout)]
    shares += [getattr(module, "attention_dropout", 0.0) for module in modules]
    return [share for share in shares if share == 0.25]


@every_architecture
def test_relu_replaces_gelu_in_every_layer(make_model, rows, tmp_path, model_type):
    model = make(make_model, model_type)
    before_NC = predict_logits(model, rows)
    changed = replace_gelu(model)
    for layer in layers_of(changed):
        assert isinstance(getattr(layer.activated, layer.activation_name), nn.ReLU)
    logits_NC = check_graph(changed, tmp_path / "model.onnx", rows)
    assert not np.allclose(logits_NC, before_NC, atol=1e-3)
    np.testing.assert_array_equal(predict_logits(model, rows), before_NC)


@every_architecture
def test_those_that_cannot_be_made_smaller_are_refused_with_the_list(make_model, rows, model_type):
    model = make(make_model, model_type)
    attention = layers_of(model)[0].attention
    if architecture_of(model.config).can_shrink:
        layer = layers_of(model)[0]
        assert getattr(attention, layer.num_heads_name) == NUM_HEADS
        assert getattr(attention, layer.heads_width_name) == WIDTH
        return
    shrinkable = ", ".join(sorted(name for name, of in ARCHITECTURES.items() if of.can_shrink))
    message = f"'{model_type}' can be neither pruned nor cut; these can: {shrinkable}"
    for shrink in (lambda: measure_importance(model, rows), lambda: cut_layers(model, [0])):
        with pytest.raises(InputError, match=message):
            shrink()


def test_all_but_static_vectors_have_layers():
    assert {*ARCHITECTURES} == {*WITH_LAYERS, "static-vectors"}


def test_an_unknown_architecture_is_refused_with_the_list():
    config = transformers.GPT2Config()
    with pytest.raises(InputError, match="'gpt2' is not one of bert, deberta-v2, distilbert"):
        architecture_of(config)
    with pytest.raises(InputError, match="'gpt2' can be neither pruned nor cut; these can: bert"):
        shrinkable_architecture_of(config)


@pytest.mark.parametrize("bias", [True, False])
def test_a_joined_projection_is_split_into_views(bias):
    joined = nn.Linear(4, 6, bias=bias)
    inputs = torch.randn(3, 4)
    parts = split_linear(joined, 2)
    outputs = torch.cat([part(inputs) for part in parts], dim=1)
    torch.testing.assert_close(outputs, joined(inputs).detach())
    with torch.no_grad():
        joined.weight.zero_()
    assert all(part.weight.abs().max() == 0 for part in parts)
    assert [part.out_features for part in parts] == [3, 3]
