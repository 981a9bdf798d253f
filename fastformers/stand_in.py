"""A classifier of a wanted shape with random weights, and its int8 bundle: for speed alone.

    shape + tokenizer + rows -> [stand_in] -> model, bundle

Speed does not depend on weights, so the paper's shapes can be timed without training them.
Accuracy means nothing here, and the bundle's name for its teacher says so.
"""

import tempfile
from pathlib import Path
from typing import Literal

import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from fastformers.bundle import Bundle, write_bundle
from fastformers.cost_profile import measure_cost_profile
from fastformers.engine import OnnxEngine
from fastformers.export import class_names, read_encoder
from fastformers.graph import write_graph
from fastformers.layers import keep_heads, keep_neurons, layer_parts
from fastformers.quantize import collect_histograms
from fastformers.tokenizer import TokenizedRows

ShapeName = Literal["student", "pruned", "bert-base"]
MAX_LENGTH = 512
# Heads and feed-forward neurons that the paper's most pruned student keeps (a third and half go).
_PRUNED_HEADS, _PRUNED_NEURONS = 8, 600


def make_model(shape: ShapeName, *, num_words: int) -> PreTrainedModel:
    """A two-class BERT in eval mode: the paper's teacher, its 4 x 312 student, or that one pruned.

    Source:
        Kim and Hassan Awadalla 2020, arXiv:2010.13382, Table 3.
    """
    is_base = shape == "bert-base"
    config = BertConfig(
        vocab_size=num_words,
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
