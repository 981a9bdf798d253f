"""Make a classifier of a given shape with random weights, its int8 graph and its bundle.

    shape -> [random_models] -> PyTorch model -> int8 graph -> bundle

Speed does not depend on the values of weights, so the paper's shapes can be timed without training
them. Accuracy means nothing here, and the bundle names "random weights" as its teacher. This module
knows nothing of how its models are timed.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from fastformers.benchmark.encoder_shapes import EncoderShape
from fastformers.export.calibration import collect_histograms
from fastformers.export.encoder import EncoderWeights, count_multiply_adds
from fastformers.export.graph import write_graph
from fastformers.export.read_encoder import read_encoder
from fastformers.inference.bundle import Bundle, write_bundle
from fastformers.inference.cost_profile import measure_cost_profile
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.onnx_files import remove_graph
from fastformers.inference.tasks import TEXT_CLASSIFICATION
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.layers import keep_heads, layer_parts
from fastformers.models.loading import class_names
from fastformers.models.variants.reduced_layers import change_reduction
from fastformers.models.variants.token_reduction import TokenReduction

MAX_LENGTH = 512  # positions of BERT


def make_random_model(shape: EncoderShape, *, max_length: int = MAX_LENGTH) -> PreTrainedModel:
    """A two-class BERT in eval mode with BERT's initial weights, the same each time.

    Biases are random too: zeros, which no trained model has, would be optimized away.

    Args:
        shape: Shape of the model; where it has fewer heads than fit its width, they are pruned.
        max_length: Positions of the model, in tokens.

    Raises:
        ValueError: Heads of that width do not fit the hidden width.
        InputError: There are more shares of tokens than layers.
    """
    unpruned_heads, rest = divmod(shape.width, shape.head_width)
    if rest or not 0 < shape.num_heads <= unpruned_heads:
        raise ValueError(f"{shape}: the heads do not fit the width")
    config = BertConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=unpruned_heads,
        intermediate_size=shape.ffn_width,
        hidden_act=shape.activation,
        max_position_embeddings=max_length,
        num_labels=2,
    )
    torch.manual_seed(0)
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_(std=config.initializer_range)
    if shape.num_heads < unpruned_heads:
        for layer in layer_parts(model):
            keep_heads(layer, range(shape.num_heads))
        kept = {"num_heads": shape.num_heads, "ffn_width": shape.ffn_width}
        config.pruned_layers = [kept] * shape.num_layers
    if shape.keep_shares:
        change_reduction(model, TokenReduction(keep_shares=shape.keep_shares))
    return model


def write_int8_graph(
    model: PreTrainedModel, path: Path, *, rows: TokenizedRows, text_pairs: bool
) -> EncoderWeights:
    """Write the int8 graph of a model, calibrated by plain minimum and maximum.

    Args:
        model: Classifier in eval mode.
        path: ONNX file to write, its weights beside it.
        rows: Calibration rows.
        text_pairs: Whether the graph takes token types.

    Returns:
        The weights that the graph was built from.
    """
    encoder = read_encoder(model)
    observed = path.with_suffix(".observed.onnx")
    write_graph(encoder, observed, text_pairs=text_pairs, observe=True)
    histograms = collect_histograms(observed, rows)
    remove_graph(observed)
    ranges = {name: histogram.clipped_range(0.0) for name, histogram in histograms.items()}
    write_graph(encoder, path, text_pairs=text_pairs, ranges=ranges)
    return encoder


def make_random_bundle(
    model: PreTrainedModel, *, tokenizer_json: str, rows: TokenizedRows, path: Path
) -> Bundle:
    """Write the int8 bundle of a model of random weights.

    Args:
        model: Classifier of single texts, in eval mode.
        tokenizer_json: Serialized tokenizer.
        rows: Calibration rows.
        path: Directory of the bundle.
    """
    with tempfile.TemporaryDirectory(prefix="fastformers-") as scratch:
        graph = Path(scratch) / "model.onnx"
        encoder = write_int8_graph(model, graph, rows=rows, text_pairs=False)
        engine = OnnxEngine(graph)
        bundle = describe_random_bundle(model, encoder, engine, precision="int8", path=path)
        return write_bundle(bundle, model=graph, tokenizer_json=tokenizer_json)


def describe_random_bundle(
    model: PreTrainedModel,
    encoder: EncoderWeights,
    engine: OnnxEngine,
    *,
    precision: str,
    path: Path,
) -> Bundle:
    """What is to be written of a model of random weights; its cost is measured here.

    Args:
        model: Classifier of single texts.
        encoder: Its weights.
        engine: Its graph.
        precision: Precision of the graph.
        path: Directory of the bundle.
    """
    return Bundle(
        path=path,
        task=TEXT_CLASSIFICATION,
        labels=class_names(model.config),
        num_outputs=engine.num_outputs,
        max_length=min(MAX_LENGTH, encoder.max_length),
        text_pairs=False,
        input_names=engine.input_names,
        precision=precision,
        multiply_adds_per_token=count_multiply_adds(encoder),
        num_layers=len(encoder.layers),
        width=encoder.width,
        stages=(),
        provenance={"teacher": "random weights"},
        cost_profile=measure_cost_profile(engine, max_length=encoder.max_length),
        files={},
    )


def random_rows(lengths_N: NDArray[np.integer], *, vocab_size: int) -> TokenizedRows:
    """Random token ids, the same each time, of texts of the given lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths_N, dtype=np.int64)])
    ids = np.random.default_rng(0).integers(0, vocab_size, int(offsets[-1]))
    return TokenizedRows(
        ids=ids.astype(np.uint32),
        offsets=offsets,
        second_lengths_N=np.zeros(len(lengths_N), np.uint16),
    )
