"""Whether the graph of a model of any architecture computes what PyTorch does."""

import numpy as np

from fastformers.export.graph import write_graph
from fastformers.export.read_encoder import read_encoder
from fastformers.inference.engine import run_graph
from fastformers.models.forward import predict_logits


def check_graph(model, path, rows):
    """The graph has PyTorch's logits, which differ between rows; returns them."""
    write_graph(read_encoder(model), path, text_pairs=False)
    logits_NC = predict_logits(model, rows)
    np.testing.assert_allclose(run_graph(path, rows), logits_NC, atol=2e-5)
    assert logits_NC.std(axis=0).min() > 0.05
    return logits_NC
