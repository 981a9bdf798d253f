"""Add what a token gets for its place in a row: an embedding of its position and of its type.

    EncoderWeights -> graph -> [embeddings] -> model.onnx

Rows have one exact length, so positions are a slice of the table, the same one for all rows. Only
where positions are counted without padding tokens, as RoBERTa counts them, is the row of the table
looked up for each token: a text may hold the padding token itself ("<pad>" in scraped text). This
module knows nothing of layers or heads.

Shape suffixes: as in encoder.py, and B rows of a batch, T tokens of each.
"""

import numpy as np
from onnx import TensorProto

from fastformers.arrays import Floats
from fastformers.export.encoder import EncoderWeights, Padding
from fastformers.export.layers.attention import Nodes


def add_places(
    graph: Nodes, encoder: EncoderWeights, tokens: str, length: str, *, has_types: bool
) -> str:
    """Add the embeddings of positions and types, which a model may lack, to those of tokens.

    Args:
        graph: Graph to which nodes and constants are added.
        encoder: Weights of the model.
        tokens: Name of the token embeddings, (B, T, E).
        length: Name of the tensor that holds T, (1,).
        has_types: Whether the graph is given token types; else every token is of the first type.

    Returns:
        Name of the sum, (B, T, E).
    """
    places_PE, types_KE = encoder.position_embeddings_PE, encoder.token_types_KE
    total = tokens
    first_1E = None if types_KE is None or has_types else types_KE[:1]
    if places_PE is not None:
        positions = _positions(
            graph, places_PE[: encoder.max_length], encoder.padding, first_1E, length
        )
        total = graph.node("Add", [total, positions])
    elif first_1E is not None:
        total = graph.node("Add", [total, graph.const("places", first_1E)])
    if has_types and types_KE is not None:
        types = graph.const("types", types_KE)
        total = graph.node("Add", [total, graph.node("Gather", [types, "token_type_ids"])])
    return total


def _positions(
    graph: Nodes,
    table_PE: Floats,
    padding: Padding | None,
    first_1E: Floats | None,
    length: str,
) -> str:
    """Embeddings of the positions, (T, E), or (B, T, E) where padding tokens are not counted."""
    if padding is not None:
        table_PE = np.concatenate([padding.embedding_1E, table_PE])
    if first_1E is not None:
        table_PE = table_PE + first_1E
    if padding is None:
        zero = graph.const("zero", np.array([0]))
        return graph.node("Slice", [graph.const("places", table_PE), zero, length, zero])
    table = graph.const("places", table_PE)
    pad = graph.const("pad", np.array(padding.token_id, graph.id_type))
    axis = graph.const("axis", np.array(1))
    is_text = graph.node("Not", [graph.node("Equal", ["input_ids", pad])])
    is_counted = graph.node("Cast", [is_text], to=TensorProto.INT64)
    places = graph.node("Mul", [graph.node("CumSum", [is_counted, axis]), is_counted])
    return graph.node("Gather", [table, places])
