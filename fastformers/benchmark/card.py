"""A bundle's float16 graph on a GPU beside PyTorch on the same card, and the card's peak.

    model + rows -> [card] -> rows a second of each candidate, share of the peak

PyTorch runs in the two ways that a user would choose: out of the box (float32, batches of 32 in the
order of the corpus, padded to their longest), and as an expert would (float16, fused attention,
rows sorted by length, a token budget, no wait for the card before the end). A slow candidate runs
fewer rows of the same lengths: rates are compared, and all take turns. This module starts CUDA and
knows nothing of Ray.

Shape suffixes: N rows, B rows of a batch, T padded tokens.
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fastformers.benchmark.encoder_shapes import EncoderShape
from fastformers.benchmark.random_models import describe_random_bundle
from fastformers.benchmark.timing import Batch, pad_rows
from fastformers.clock import median_in_turns, time_call
from fastformers.export.graph import write_graph
from fastformers.export.read_encoder import read_encoder
from fastformers.inference.batching import plan_batches
from fastformers.inference.bundle import Bundle, write_bundle
from fastformers.inference.engine import Engine, OnnxEngine, run_batches
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.variants.token_counts import count_kept_tokens

PRECISION = "float16"
PYTORCH_BATCH_ROWS = 32
# The fastest of these counts.
PYTORCH_BUDGETS = (16 * 1024, 32 * 1024, 64 * 1024)
_PEAK_SIZE, _PEAK_PRODUCTS = 8192, 20


@dataclass(frozen=True, kw_only=True)
class CardCandidate:
    """One way to score rows on the card.

    Attributes:
        name: Name in tables.
        num_rows: Rows of one pass.
        run: Scores them all once; the logits are in the host's memory when it returns.
    """

    name: str
    num_rows: int
    run: Callable[[], object]


def our_candidate(
    name: str, engine: Engine, rows: TokenizedRows, *, max_batch_tokens: int
) -> CardCandidate:
    """A bundle's graph in one of our engines, on the batches that a job forms."""

    def run() -> None:
        plan = plan_batches(rows.lengths_N, max_batch_tokens=max_batch_tokens)
        run_batches(engine, run_rows, plan)

    def run_rows(rows_B: NDArray[np.intp]) -> NDArray[np.float32]:
        return engine.run(rows.batch_ids(rows_B), rows.batch_types(rows_B))

    return CardCandidate(name=name, num_rows=len(rows.lengths_N), run=run)


def pytorch_float32(
    model: PreTrainedModel, rows: TokenizedRows, *, device: str = "cuda"
) -> CardCandidate:
    """PyTorch out of the box: float32, the order of the corpus, a result for each batch."""
    on_card = copy.deepcopy(model).eval().to(device)
    starts = range(0, len(rows.lengths_N), PYTORCH_BATCH_ROWS)
    order_N = np.arange(len(rows.lengths_N))
    batches = [pad_rows(rows, order_N[start : start + PYTORCH_BATCH_ROWS]) for start in starts]

    def run() -> None:
        for batch in batches:
            _logits(on_card, batch).cpu()

    name = f"PyTorch float32, {PYTORCH_BATCH_ROWS} rows padded"
    return CardCandidate(name=name, num_rows=len(order_N), run=run)


def pytorch_float16(
    model: PreTrainedModel,
    rows: TokenizedRows,
    *,
    max_batch_tokens: int,
    device: str = "cuda",
) -> CardCandidate:
    """PyTorch as an expert runs it: float16, fused attention, sorted rows, one wait at the end."""
    on_card = copy.deepcopy(model).eval().half().to(device)
    on_card.set_attn_implementation("sdpa")
    batches = [pad_rows(rows, rows_B) for rows_B in _plan_sorted(rows, max_batch_tokens)]

    def run() -> None:
        torch.cat([_logits(on_card, batch) for batch in batches]).cpu()

    name = f"PyTorch float16, sorted, {max_batch_tokens // 1024}k tokens"
    return CardCandidate(name=name, num_rows=len(rows.lengths_N), run=run)


def measure_rates_on_card(candidates: Sequence[CardCandidate], *, repeats: int) -> dict[str, float]:
    """Median rows a second of all candidates, which take turns."""
    return median_in_turns(
        {candidate.name: partial(_rate, candidate) for candidate in candidates}, repeats=repeats
    )


def measure_float16_peak(*, repeats: int = 5) -> float:
    """Operations a second of a large float16 matrix product, two for each multiply-add."""
    shape = (_PEAK_SIZE, _PEAK_SIZE)
    left, right = (torch.randn(shape, device="cuda", dtype=torch.float16) for _ in range(2))

    def multiply() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(_PEAK_PRODUCTS):
            torch.matmul(left, right)
        torch.cuda.synchronize()
        return time.perf_counter() - start

    multiply()
    seconds = statistics.median(multiply() for _ in range(repeats))
    return _PEAK_PRODUCTS * 2 * _PEAK_SIZE**3 / seconds


def count_operations(shape: EncoderShape, lengths_N: NDArray[np.integer]) -> float:
    """Operations that an encoder needs for rows, two for each multiply-add; no padding counts."""
    attention_width = shape.num_heads * shape.head_width
    of_entering = 3 * shape.width * attention_width
    of_leaving = shape.width * attention_width + 2 * shape.width * shape.ffn_width
    shares = [*shape.keep_shares, *[1.0] * (shape.num_layers - len(shape.keep_shares))]
    tokens_LN = np.stack([lengths_N, *count_kept_tokens(lengths_N.astype(np.int64), shares)])
    tokens_LN = tokens_LN.astype(np.float64)
    entering, leaving = float(tokens_LN[:-1].sum()), float(tokens_LN[1:].sum())
    of_pairs = 2 * attention_width * float((tokens_LN[:-1] ** 2).sum())
    return 2 * (of_entering * entering + of_leaving * leaving + of_pairs)


def tile_rows(rows: TokenizedRows, copies: int) -> TokenizedRows:
    """The rows several times, as a larger corpus of the same lengths."""
    lengths_N = np.tile(np.diff(rows.offsets), copies)
    return TokenizedRows(
        ids=np.tile(rows.ids, copies),
        offsets=np.concatenate([[0], np.cumsum(lengths_N, dtype=np.int64)]),
        second_lengths_N=np.tile(rows.second_lengths_N, copies),
    )


def make_card_bundle(model: PreTrainedModel, *, tokenizer_json: str, path: Path) -> Bundle:
    """Write the float16 bundle of a model of random weights.

    Its cost profile is of this machine's CPU, which computes float16 slowly: it cuts shards.

    Args:
        model: Classifier of single texts, in eval mode.
        tokenizer_json: Serialized tokenizer.
        path: Directory of the bundle.
    """
    encoder = read_encoder(model)
    graph = path.parent / f"{path.name}-graph" / "model.onnx"
    graph.parent.mkdir(parents=True)
    write_graph(encoder, graph, text_pairs=False, float16=True)
    engine = OnnxEngine(graph, num_threads=0)
    bundle = describe_random_bundle(model, encoder, engine, precision=PRECISION, path=path)
    return write_bundle(bundle, model=graph, tokenizer_json=tokenizer_json)


def _plan_sorted(rows: TokenizedRows, max_batch_tokens: int) -> list[NDArray[np.intp]]:
    """Rows sorted by length, the longest first, as many a batch as fit when padded."""
    order_N = np.argsort(-rows.lengths_N.astype(np.int64), kind="stable")
    batches, start = [], 0
    while start < len(order_N):
        num_rows = max(1, max_batch_tokens // int(rows.lengths_N[order_N[start]]))
        batches.append(order_N[start : start + num_rows])
        start += num_rows
    return batches


def _logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(
            input_ids=torch.from_numpy(batch.ids_BT).to(model.device, non_blocking=True),
            attention_mask=torch.from_numpy(batch.mask_BT).to(model.device, non_blocking=True),
        ).logits
    return logits


def _rate(candidate: CardCandidate) -> float:
    return candidate.num_rows / time_call(candidate.run)
