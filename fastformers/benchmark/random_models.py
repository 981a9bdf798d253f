"""A classifier of a wanted shape with random weights, and its int8 bundle: for speed alone.

    shape + tokenizer + rows -> [random_models] -> model, bundle

Speed does not depend on weights, so the paper's shapes can be timed without training them.
Accuracy means nothing here, and the bundle's name for its teacher says so.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from fastformers.export.calibration import collect_histograms
from fastformers.export.encoder import Activation, EncoderWeights, Floats, Head, Layer, Linear, Norm
from fastformers.export.graph import write_graph
from fastformers.export.read_absolute import read_encoder
from fastformers.inference.bundle import Bundle, write_bundle
from fastformers.inference.cost_profile import measure_cost_profile
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.onnx_files import remove_graph
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.layers import keep_heads, keep_neurons, layer_parts
from fastformers.models.loading import class_names


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """Everything of a BERT-like encoder that decides its speed."""

    num_layers: int
    width: int
    num_heads: int
    head_width: int
    ffn_width: int
    activation: Activation
    vocabulary: int = 30522

    def __str__(self) -> str:
        heads = f"{self.num_heads} heads of {self.head_width}"
        return f"{self.num_layers} layers x {self.width}, {heads}, FFN {self.ffn_width}"


ShapeName = Literal["student", "pruned", "bert-base"]
MAX_LENGTH = 512
# Heads and feed-forward neurons that the paper's most pruned student keeps (a third and half go).
_PRUNED_HEADS, _PRUNED_NEURONS = 8, 600


def make_model(shape: ShapeName, *, vocab_size: int) -> PreTrainedModel:
    """A two-class BERT in eval mode: the paper's teacher, its 4 x 312 student, or that one pruned.

    Source:
        Kim and Hassan Awadalla 2020, arXiv:2010.13382, Table 3.
    """
    is_base = shape == "bert-base"
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=768 if is_base else 312,
        num_hidden_layers=12 if is_base else 4,
        num_attention_heads=12,
        intermediate_size=3072 if is_base else 1200,
        hidden_act="gelu" if is_base else "relu",
        max_position_embeddings=MAX_LENGTH,
    )
    torch.manual_seed(0)
    model = BertForSequenceClassification(config).eval()
    if shape == "pruned":
        for layer in layer_parts(model):
            keep_heads(layer, range(_PRUNED_HEADS))
            keep_neurons(layer, range(_PRUNED_NEURONS))
        kept = {"num_heads": _PRUNED_HEADS, "ffn_width": _PRUNED_NEURONS}
        config.pruned_layers = [kept] * config.num_hidden_layers
    return model


def make_stand_in(
    model: PreTrainedModel, *, tokenizer_json: str, rows: TokenizedRows, path: Path
) -> Bundle:
    """Write the int8 bundle of a model, calibrated by plain minimum and maximum.

    Args:
        model: In eval mode.
        tokenizer_json: Serialized tokenizer.
        rows: Calibration rows.
        path: Directory of the bundle.
    """
    encoder = read_encoder(model)
    with tempfile.TemporaryDirectory(prefix="fastformers-") as scratch:
        graph = Path(scratch) / "model.onnx"
        write_graph(encoder, graph, text_pairs=False, observe=True)
        ranges = {
            name: histogram.clipped_range(0.0)
            for name, histogram in collect_histograms(graph, rows).items()
        }
        write_graph(encoder, graph, text_pairs=False, ranges=ranges)
        engine = OnnxEngine(graph)
        bundle = Bundle(
            path=path,
            task="text-classification",
            labels=class_names(model.config),
            num_outputs=engine.num_outputs,
            max_length=min(MAX_LENGTH, encoder.max_length),
            text_pairs=False,
            input_names=engine.input_names,
            precision="int8",
            stages=(),
            provenance={"teacher": "random weights"},
            cost_profile=measure_cost_profile(engine, max_length=encoder.max_length),
            files={},
        )
        return write_bundle(bundle, model=graph, tokenizer_json=tokenizer_json)


def random_rows(lengths_N: NDArray[np.integer], *, vocabulary: int) -> TokenizedRows:
    """Random token ids of texts of the given lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths_N, dtype=np.int64)])
    ids = np.random.default_rng(0).integers(0, vocabulary, int(offsets[-1]))
    return TokenizedRows(
        ids=ids.astype(np.uint32),
        offsets=offsets,
        second_lengths_N=np.zeros(len(lengths_N), np.uint16),
    )


def random_encoder(shape: EncoderShape, *, max_length: int) -> EncoderWeights:
    """A two-class encoder of that shape with BERT's initial weights, the same each time."""
    rng = np.random.default_rng(0)
    width, inner = shape.width, shape.num_heads * shape.head_width

    def floats(*sizes: int) -> Floats:
        return rng.standard_normal(sizes, np.float32) * np.float32(0.02)

    def linear(inputs: int, outputs: int) -> Linear:
        return Linear(weight=floats(inputs, outputs), bias=floats(outputs))

    def norm() -> Norm:
        return Norm(weight=1 + floats(width), bias=floats(width), epsilon=1e-12)

    return EncoderWeights(
        max_length=max_length,
        token_embeddings_VE=floats(shape.vocabulary, width),
        position_embeddings_PE=floats(max_length, width),
        token_types_KE=floats(2, width),
        embedding_norm=norm(),
        projection=None,
        activation=shape.activation,
        layers=tuple(
            Layer(
                num_heads=shape.num_heads,
                query=linear(width, inner),
                key=linear(width, inner),
                value=linear(width, inner),
                output=linear(inner, width),
                attention_norm=norm(),
                up=linear(width, shape.ffn_width),
                down=linear(shape.ffn_width, width),
                ffn_norm=norm(),
            )
            for _ in range(shape.num_layers)
        ),
        head=Head(hidden=linear(width, width), activation="tanh", output=linear(width, 2)),
    )


def random_classifier(shape: EncoderShape, max_length: int) -> PreTrainedModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        intermediate_size=shape.ffn_width,
        hidden_act=shape.activation,
        max_position_embeddings=max_length,
        num_labels=2,
    )
    return BertForSequenceClassification(config).eval()


def write_random_int8(
    shape: EncoderShape, path: Path, rows: TokenizedRows, max_length: int
) -> Path:
    """Lay the graph with activation ranges of the random model itself."""
    encoder = random_encoder(shape, max_length=max_length)
    observed = path.with_suffix(".observed.onnx")
    write_graph(encoder, observed, text_pairs=True, observe=True)
    histograms = collect_histograms(observed, rows.slice(0, 1))
    remove_graph(observed)
    ranges = {name: histogram.clipped_range(0.0) for name, histogram in histograms.items()}
    write_graph(encoder, path, text_pairs=True, ranges=ranges)
    return path
