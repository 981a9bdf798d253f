"""Made-up architectures with names of their own for everything.

One is BERT without token types. The other has what newer encoders have: norms before attention and
feed-forward, one after the last layer and one in the head, a gate, and no biases. Each is added as
a contributor would add one: by one `Architecture` and one line of the table.
"""

from dataclasses import replace

import numpy as np
import pytest

from fastformers.errors import InputError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
nn = torch.nn

from fastformers.compression.pruning.prune import measure_importance, prune_model  # noqa: E402
from fastformers.compression.pruning.pruning_plan import plan_pruning  # noqa: E402
from fastformers.compression.students.distill import replace_gelu  # noqa: E402
from fastformers.compression.students.student import cut_layers, cut_width  # noqa: E402
from fastformers.export.read_encoder import read_encoder  # noqa: E402
from fastformers.models.architectures import ARCHITECTURES  # noqa: E402
from fastformers.models.architectures.architecture import (  # noqa: E402
    Architecture,
    EmbeddingParts,
    HeadParts,
    LayerParts,
)
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.layers import layer_parts  # noqa: E402
from fastformers.models.loading import load_model, max_positions  # noqa: E402
from tests.fastformers.models.architectures.graphs import check_graph  # noqa: E402


class MadeUpConfig(transformers.BertConfig):
    model_type = "made-up"


def attend(layer, x_BTD):
    """The attention of a layer, after its last projection."""

    def split(y_BTW):
        return y_BTW.unflatten(2, (layer.count, layer.width // layer.count)).transpose(1, 2)

    attended = nn.functional.scaled_dot_product_attention(
        *(split(project(x_BTD)) for project in (layer.q, layer.k, layer.v))
    )
    return layer.o(attended.transpose(1, 2).flatten(2))


class MadeUpLayer(nn.Module):
    def __init__(self, layer, num_heads):
        super().__init__()
        inner = layer.attention.self
        self.count, self.width = num_heads, inner.all_head_size
        self.q, self.k, self.v = inner.query, inner.key, inner.value
        self.o, self.norm1 = layer.attention.output.dense, layer.attention.output.LayerNorm
        self.wide, self.narrow = layer.intermediate.dense, layer.output.dense
        self.norm2, self.bend = layer.output.LayerNorm, nn.GELU()

    def forward(self, x_BTD):
        x_BTD = self.norm1(x_BTD + attend(self, x_BTD))
        return self.norm2(x_BTD + self.narrow(self.bend(self.wide(x_BTD))))


class MadeUpModel(transformers.PreTrainedModel):
    config_class = MadeUpConfig
    base_model_prefix = "stem"

    def __init__(self, config):
        super().__init__(config)
        bert = transformers.BertModel(config)
        self.words, self.places = nn.Embedding(100, 32), nn.Embedding(64, 32)
        self.first_norm = nn.LayerNorm(32)
        self.blocks = nn.ModuleList(
            MadeUpLayer(layer, config.num_attention_heads) for layer in bert.encoder.layer
        )
        self.post_init()

    def forward(self, input_ids):
        x_BTD = self.words(input_ids) + self.places.weight[2 : 2 + input_ids.shape[1]]
        x_BTD = self.first_norm(x_BTD)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return x_BTD


class MadeUpForSequenceClassification(transformers.PreTrainedModel):
    config_class = MadeUpConfig
    base_model_prefix = "stem"

    def __init__(self, config):
        super().__init__(config)
        self.stem = MadeUpModel(config)
        self.dense, self.out = nn.Linear(32, 32), nn.Linear(32, config.num_labels)
        self.post_init()

    def forward(self, input_ids):
        pooled_BD = self.stem(input_ids)[:, 0]
        logits = self.out(torch.relu(self.dense(pooled_BD)))
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=logits)


class GatedConfig(transformers.BertConfig):
    model_type = "made-up-gated"


class GatedLayer(nn.Module):
    def __init__(self, num_heads):
        super().__init__()
        self.count, self.width = num_heads, 32
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32, bias=False) for _ in range(4))
        self.wide, self.gate = (nn.Linear(32, 64, bias=False) for _ in range(2))
        self.narrow, self.bend = nn.Linear(64, 32, bias=False), nn.GELU()
        self.norm1, self.norm2 = (nn.LayerNorm(32, bias=False) for _ in range(2))

    def forward(self, x_BTD):
        x_BTD = x_BTD + attend(self, self.norm1(x_BTD))
        normed_BTD = self.norm2(x_BTD)
        return x_BTD + self.narrow(self.bend(self.wide(normed_BTD)) * self.gate(normed_BTD))


class GatedModel(transformers.PreTrainedModel):
    config_class = GatedConfig
    base_model_prefix = "stem"

    def __init__(self, config):
        super().__init__(config)
        self.words, self.places = nn.Embedding(100, 32), nn.Embedding(64, 32)
        self.first_norm, self.last_norm = nn.LayerNorm(32), nn.LayerNorm(32)
        self.blocks = nn.ModuleList(
            GatedLayer(config.num_attention_heads) for _ in range(config.num_hidden_layers)
        )
        self.post_init()

    def forward(self, input_ids):
        x_BTD = self.words(input_ids) + self.places.weight[2 : 2 + input_ids.shape[1]]
        x_BTD = self.first_norm(x_BTD)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.last_norm(x_BTD)


class GatedForSequenceClassification(transformers.PreTrainedModel):
    config_class = GatedConfig
    base_model_prefix = "stem"

    def __init__(self, config):
        super().__init__(config)
        self.stem = GatedModel(config)
        self.dense, self.norm = nn.Linear(32, 32), nn.LayerNorm(32)
        self.out = nn.Linear(32, config.num_labels)
        self.post_init()

    def forward(self, input_ids):
        pooled_BD = self.stem(input_ids)[:, 0]
        logits = self.out(self.norm(torch.relu(self.dense(pooled_BD))))
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=logits)


MADE_UP = Architecture(
    embeddings=lambda encoder: EmbeddingParts(
        tokens=encoder.words, positions=encoder.places, token_types=None, norm=encoder.first_norm
    ),
    layers=lambda encoder: encoder.blocks,
    parts=lambda layer: LayerParts(
        attention=layer,
        head_width=16,
        query=layer.q,
        key=layer.k,
        value=layer.v,
        output=layer.o,
        attention_norm=layer.norm1,
        up=layer.wide,
        down=layer.narrow,
        ffn_norm=layer.norm2,
        activated=layer,
        num_heads_name="count",
        heads_width_name="width",
        activation_name="bend",
    ),
    head=lambda model: HeadParts(hidden=model.dense, activation="relu", output=model.out),
    first_position=lambda config: 2,
    can_shrink=True,
)


GATED = replace(
    MADE_UP,
    parts=lambda layer: replace(MADE_UP.parts(layer), gate=layer.gate, norm_first=True),
    head=lambda model: replace(MADE_UP.head(model), norm=model.norm),
    final_norm=lambda encoder: encoder.last_norm,
    layer_settings=("kinds",),
)


@pytest.fixture(params=[MadeUpForSequenceClassification, GatedForSequenceClassification])
def made_up(request):
    """A model that transformers can load, of an architecture this project does not know yet."""
    model_class, config_class = request.param, request.param.config_class
    transformers.AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    transformers.AutoModelForSequenceClassification.register(
        config_class, model_class, exist_ok=True
    )
    torch.manual_seed(0)
    config = config_class(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        type_vocab_size=0,
        initializer_range=0.3,
        id2label={0: "a", 1: "b", 2: "c"},
    )
    config.kinds = ["first", "middle", "last"]
    model = model_class(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_an_architecture_is_one_object_and_one_line_of_the_table(
    made_up, rows, tmp_path, monkeypatch
):
    made_up.save_pretrained(tmp_path / "saved")
    model_type = made_up.config.model_type
    with pytest.raises(InputError, match=f"architecture '{model_type}' is not one of bert"):
        load_model(tmp_path / "saved")
    architecture = GATED if model_type == "made-up-gated" else MADE_UP
    monkeypatch.setitem(ARCHITECTURES, model_type, architecture)
    model = load_model(tmp_path / "saved")
    assert max_positions(model.config) == read_encoder(model).max_length == 62
    path = tmp_path / "model.onnx"
    logits_NC = check_graph(model, path, rows)
    assert np.abs(check_graph(replace_gelu(model), path, rows) - logits_NC).max() > 1e-3

    importance = measure_importance(model, rows)
    plan = plan_pruning(importance, prune_heads=0.5, prune_ffn=0.5)
    pruned = prune_model(model, plan)
    check_graph(pruned, path, rows)
    pruned.save_pretrained(tmp_path / "pruned")
    again = load_model(tmp_path / "pruned")
    assert [layer.num_heads for layer in layer_parts(again)] == [1, 1, 1]
    np.testing.assert_allclose(predict_logits(again, rows), predict_logits(pruned, rows), atol=1e-5)
    student = cut_width(cut_layers(model, [0, 2]), 16, replace_layers(importance, [0, 2]))
    assert (student.config.kinds == ["first", "last"]) is bool(architecture.layer_settings)
    check_graph(student, path, rows)


def replace_layers(importance, kept):
    """Importance of the layers that are kept."""
    return replace(
        importance,
        heads=tuple(importance.heads[at] for at in kept),
        neurons=tuple(importance.neurons[at] for at in kept),
    )
