"""The steps of a ablation: how a PyTorch classifier or a graph is run when it is timed.

    models + token ids -> [steps] -> ablation

PyTorch steps run as out of the box: one text at a time on all cores, the model already loaded.
Engine steps load their graph inside the clock, as the paper's do. Knows token ids; nothing of
text, labels or bundles.

Shape suffixes: N texts, S texts that are timed, B texts of a batch, C classes.
"""

import itertools
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fastformers.ablation.measure import AblationStep, OnTokens, Timing, extrapolate, spread_sample
from fastformers.inference.batching import in_row_order, plan_batches
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.tokenizer import TokenizedRows

PADDED = "PyTorch out of the box, padded to {}"
UNPADDED = "+ dynamic sequence length"
DISTILLED = "+ knowledge distillation"
INT8_GRAPH = "+ int8 quantization + graph optimization"
MULTI_INSTANCE = "+ multi-instance inference"


def pytorch_baselines(
    model: PreTrainedModel,
    rows: TokenizedRows,
    *,
    padded_to: int,
    num_threads: int,
    baseline_rows: int,
    logits_NC: NDArray[np.float32] | None,
    tokenization_s: float | None,
) -> list[AblationStep]:
    """The first two steps: the teacher padded to the maximum, and each text at its own length."""
    return [
        pytorch_step(
            name,
            model,
            rows,
            num_threads=num_threads,
            padded_to=padding,
            max_timed_rows=baseline_rows,
            logits_NC=logits_NC,
            tokenization_s=tokenization_s,
        )
        for name, padding in ((PADDED.format(padded_to), padded_to), (UNPADDED, None))
    ]


def pytorch_step(
    name: str,
    model: PreTrainedModel,
    rows: TokenizedRows,
    *,
    num_threads: int,
    logits_NC: NDArray[np.float32] | None,
    tokenization_s: float | None,
    padded_to: int | None = None,
    max_timed_rows: int | None = None,
) -> AblationStep:
    """A PyTorch classifier, one text at a time on all cores.

    Args:
        name: Of the step.
        model: In eval mode, loaded before the clock starts.
        rows: N tokenized texts.
        num_threads: Of one text.
        logits_NC: What the model says of all texts, found outside the clock; a sample could not.
        tokenization_s: Of all texts.
        padded_to: Tokens that each text is padded to, under a mask; None for its own length.
        max_timed_rows: Texts to time, the rest is extrapolated; None for all.
    """
    lengths_N = rows.lengths_N
    sample_S = spread_sample(lengths_N, max_timed_rows or len(rows))
    computed_S = np.full(len(sample_S), padded_to) if padded_to else lengths_N[sample_S]

    def run(on_tokens: OnTokens) -> Timing:
        times_S = np.empty(len(sample_S))
        threads_before = torch.get_num_threads()
        torch.set_num_threads(num_threads)
        try:
            with torch.inference_mode():
                model(**_inputs(model, rows, int(sample_S[-1]), padded_to))  # warm up
                for place, row in enumerate(sample_S.tolist()):
                    start = time.perf_counter()
                    model(**_inputs(model, rows, row, padded_to))
                    times_S[place] = time.perf_counter() - start
                    on_tokens(int(computed_S[place]))
        finally:
            torch.set_num_threads(threads_before)
        seconds = extrapolate(times_S, len(rows), equal_cost=padded_to is not None)
        return Timing(seconds=seconds, logits_NC=logits_NC)

    note = f"fp32, batch 1, {_count(num_threads, 'thread')}"
    if len(sample_S) < len(rows):
        how = "median text x texts" if padded_to else "evenly over sorted lengths, mean x texts"
        note += f"; {len(sample_S):,} of {len(rows):,} texts timed ({how})"
    return AblationStep(
        name=name,
        run=run,
        num_tokens=int(computed_S.sum()),
        timed_rows=len(sample_S),
        tokenization_s=tokenization_s,
        note=note,
    )


def engine_step(
    name: str,
    model: Path,
    rows: TokenizedRows,
    *,
    num_threads: int,
    tokenization_s: float | None,
) -> AblationStep:
    """A graph in one session on all cores, one text at a time, unpadded, in the file's order."""

    def run(on_tokens: OnTokens) -> Timing:
        start = time.perf_counter()
        engine = OnnxEngine(model, num_threads=num_threads)
        logits = []
        for row in range(len(rows)):
            rows_B = np.array([row])
            ids_BT = rows.batch_ids(rows_B)
            logits.append(engine.run(ids_BT, rows.batch_types(rows_B)))
            on_tokens(ids_BT.size)
        seconds = time.perf_counter() - start
        return Timing(seconds=seconds, logits_NC=np.concatenate(logits))

    return AblationStep(
        name=name,
        run=run,
        num_tokens=int(rows.lengths_N.sum()),
        timed_rows=len(rows),
        tokenization_s=tokenization_s,
        note=f"batch 1, {_count(num_threads, 'thread')}, session creation included",
    )


def instances_step(
    name: str,
    model: Path,
    rows: TokenizedRows,
    *,
    cpus_of_instance: Sequence[tuple[int, ...]],
    max_batch_tokens: int,
    tokenization_s: float | None,
    is_aside: bool = False,
) -> AblationStep:
    """A graph in one session for each core, which share length-sorted batches among them.

    Instances are threads of this process, each pinned, each with a session of one thread: ONNX
    Runtime releases the interpreter while it computes. A free instance takes the next batch.
    """
    batches = plan_batches(rows.lengths_N, max_batch_tokens=max_batch_tokens)

    def run(on_tokens: OnTokens) -> Timing:
        pending: queue.SimpleQueue[NDArray[np.intp]] = queue.SimpleQueue()
        for batch in batches:
            pending.put(batch)
        is_stopped = threading.Event()

        def work(cpus: tuple[int, ...]) -> list[tuple[NDArray[np.intp], NDArray[np.float32]]]:
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, cpus)  # of this thread alone, which ends with the run
            engine = OnnxEngine(model, num_threads=1)
            done = []
            while not is_stopped.is_set():
                try:
                    rows_B = pending.get_nowait()
                except queue.Empty:
                    break
                ids_BT = rows.batch_ids(rows_B)
                done.append((rows_B, engine.run(ids_BT, rows.batch_types(rows_B))))
                on_tokens(ids_BT.size)
            return done

        start = time.perf_counter()
        with ThreadPoolExecutor(len(cpus_of_instance)) as pool:
            try:
                shares = list(pool.map(work, cpus_of_instance))
            except BaseException:
                is_stopped.set()  # or Ctrl-C would wait for all batches
                raise
        seconds = time.perf_counter() - start
        done_batches, logits = zip(*itertools.chain.from_iterable(shares), strict=True)
        return Timing(seconds=seconds, logits_NC=in_row_order(logits, done_batches))

    instances = _count(len(cpus_of_instance), "instance")
    return AblationStep(
        name=name,
        run=run,
        num_tokens=int(rows.lengths_N.sum()),
        timed_rows=len(rows),
        tokenization_s=tokenization_s,
        note=(
            f"{instances} x 1 thread, length-sorted batches of up to {max_batch_tokens:,} tokens, "
            "session creation included"
        ),
        is_aside=is_aside,
    )


def _inputs(
    model: PreTrainedModel, rows: TokenizedRows, row: int, padded_to: int | None
) -> dict[str, torch.Tensor]:
    """What the model's own tokenizer would hand it for one text."""
    rows_B = np.array([row])
    ids = torch.from_numpy(rows.batch_ids(rows_B))
    types = torch.from_numpy(rows.batch_types(rows_B))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = types
    if padded_to is None:
        return inputs
    missing = padded_to - ids.shape[1]
    fill = {"input_ids": model.config.pad_token_id or 0}
    return {
        name: torch.nn.functional.pad(values, (0, missing), value=fill.get(name, 0))
        for name, values in inputs.items()
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
