"""Tell how close the choice of the tokens that go on was: whether rounding could turn it around.

    EncoderWeights + rows -> graph that shows significance -> [token_choices] -> gaps

Two programs that compute the same model round differently. Where two tokens are nearly as
significant, one of them may keep the first token and the other one the second, and what the model
says of such a row then differs by more than rounding. This module knows nothing of PyTorch.

Shape suffixes: M rows that are asked about, T tokens that enter a layer.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fastformers.export.encoder import EncoderWeights
from fastformers.export.graph import write_graph
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.variants.token_counts import count_kept_tokens


def measure_choice_gaps(
    encoder: EncoderWeights, rows: TokenizedRows, numbers: Sequence[int], *, text_pairs: bool
) -> NDArray[np.float64]:
    """The closest choice that the float graph makes for each of some rows.

    Args:
        encoder: Weights of a model.
        rows: Tokenized rows.
        numbers: Those of them that are asked about.
        text_pairs: Whether rows are pairs, as for `write_graph`.

    Returns:
        By how much the least significant token kept is above the most significant one dropped,
        as a share of the spread of the row's tokens, (M,), the least over the layers; inf where
        nothing was chosen.
    """
    shares = {
        f"layer{index}.significance": layer.keep_share
        for index, layer in enumerate(encoder.layers)
        if layer.keep_share < 1
    }
    with TemporaryDirectory(prefix="fastformers-") as scratch:
        graph = Path(scratch) / "observed.onnx"
        write_graph(encoder, graph, text_pairs=text_pairs, observe=True)
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        shown = [output.name for output in session.get_outputs() if output.name in shares]
        has_types = len(session.get_inputs()) > 1
        gaps_M = np.full(len(numbers), np.inf)
        for at, number in enumerate(numbers):
            feed = {"input_ids": rows.batch_ids(np.array([number]))}
            if has_types:
                feed["token_type_ids"] = rows.batch_types(np.array([number]))
            for name, significance in zip(shown, session.run(shown, feed), strict=True):
                gaps_M[at] = min(gaps_M[at], _gap(significance[0], shares[name]))
    return gaps_M


def _gap(significance_T: NDArray[np.float32], share: float) -> float:
    """Gap between the last token kept and the first one dropped, by the spread of all."""
    others = np.sort(significance_T[1:].astype(np.float64))[::-1]
    kept = int(count_kept_tokens(np.array([len(significance_T)]), [share])[0, 0]) - 1
    if not 0 < kept < len(others):
        return np.inf
    spread = float(others.std())
    return float(others[kept - 1] - others[kept]) / spread if spread else 0.0
