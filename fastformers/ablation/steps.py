"""Build the steps of an ablation: run a PyTorch classifier or a graph and time it.

    models + token ids -> [steps] -> measure

PyTorch steps run as out of the box: one text at a time on all cores, the model already loaded.
Graph steps load their graph inside the clock, as the paper's do. This module knows token ids, but
nothing of text, labels or bundles, nor whether the models were trained.

Shape suffixes: N texts, S texts that are timed, B texts of a batch, C classes.
"""

import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fastformers.ablation.measure import AblationStep, OnTokens, Timing
from fastformers.ablation.scaling import scale_by_tokens, scale_equal, spread_sample
from fastformers.ablation.texts import TimedRows
from fastformers.formatting import format_count
from fastformers.inference.batching import in_row_order, plan_batches
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.forward import takes_token_types

PADDED = "PyTorch out of the box, padded to {}"
UNPADDED = "+ dynamic sequence length"
DISTILLED = "+ knowledge distillation"
INT8_GRAPH = "+ int8 quantization + graph optimization"
MULTI_INSTANCE = "+ multi-instance inference"


@dataclass(frozen=True, kw_only=True)
class TorchModel:
    """A PyTorch classifier to be timed.

    Attributes:
        model: Classifier in eval mode, loaded before the clock starts.
        texts: Texts that it reads.
        logits_NC: Logits of all texts, computed outside the clock because a step may time only
            a sample; None where accuracy means nothing.
        note: How the model differs from what its name says; empty if it does not.
    """

    model: PreTrainedModel
    texts: TimedRows
    logits_NC: NDArray[np.float32] | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class GraphModel:
    """A graph to be timed.

    Attributes:
        name: Name of the step that this graph adds.
        path: ONNX file.
        texts: Texts that it reads.
        max_batch_tokens: Token budget of a batch where texts are batched.
        note: How the model differs from what its name says; empty if it does not.
    """

    name: str
    path: Path
    texts: TimedRows
    max_batch_tokens: int
    note: str = ""


def build_steps(
    *,
    teacher: TorchModel,
    student: TorchModel | None,
    graphs: Sequence[GraphModel],
    padded_to: int,
    baseline_rows: int,
    cpus_of_instance: Sequence[tuple[int, ...]],
) -> list[AblationStep]:
    """Build the paper's steps for the models that there are.

    Args:
        teacher: Model that runs padded to the maximum, then on each text at its own length.
        student: The distilled model, or None to leave the step out.
        graphs: First the unpruned student's graph, which runs one text on all cores and then as
            one instance for each core; further graphs run only in the latter way.
        padded_to: Tokens that the first step pads every text to.
        baseline_rows: Texts of the teacher's steps to time; the rest is scaled.
        cpus_of_instance: Logical CPUs of each one-threaded instance, one instance for each core;
            as many threads are used where a step runs one text on all cores.
    """
    num_threads = len(cpus_of_instance)
    steps = [
        pytorch_step(
            name,
            teacher,
            num_threads=num_threads,
            padded_to=padding,
            max_timed_rows=baseline_rows,
        )
        for name, padding in ((PADDED.format(padded_to), padded_to), (UNPADDED, None))
    ]
    if student is not None:
        steps.append(pytorch_step(DISTILLED, student, num_threads=num_threads))
    if graphs:
        steps.append(graph_step(graphs[0].name, graphs[0], num_threads=num_threads))
    for index, graph in enumerate(graphs):
        name = graph.name if index else MULTI_INSTANCE
        steps.append(instances_step(name, graph, cpus_of_instance=cpus_of_instance))
    return steps


def pytorch_step(
    name: str,
    model: TorchModel,
    *,
    num_threads: int,
    padded_to: int | None = None,
    max_timed_rows: int | None = None,
) -> AblationStep:
    """A PyTorch classifier, one text at a time on all cores.

    Args:
        name: Name of the step.
        model: Model to run.
        num_threads: Threads that compute one text.
        padded_to: Tokens that each text is padded to, under a mask; None for its own length.
        max_timed_rows: Texts to time, the rest is scaled; None for all.
    """
    rows = model.texts.rows
    lengths_N = rows.lengths_N
    sample_S = spread_sample(lengths_N, max_timed_rows or len(rows))
    computed_S = np.full(len(sample_S), padded_to) if padded_to else lengths_N[sample_S]

    def run(on_tokens: OnTokens) -> Timing:
        times_S = np.empty(len(sample_S))
        threads_before = torch.get_num_threads()
        torch.set_num_threads(num_threads)
        try:
            with torch.inference_mode():
                model.model(**_inputs(model.model, rows, int(sample_S[-1]), padded_to))  # warm up
                for index, row in enumerate(sample_S.tolist()):
                    start = time.perf_counter()
                    model.model(**_inputs(model.model, rows, row, padded_to))
                    times_S[index] = time.perf_counter() - start
                    on_tokens(int(computed_S[index]))
        finally:
            torch.set_num_threads(threads_before)
        if padded_to is None:
            total = {"num_rows": len(rows), "num_tokens": int(lengths_N.sum())}
            scaled = scale_by_tokens(times_S, computed_S, **total)
        else:
            scaled = scale_equal(times_S, len(rows))
        return Timing(
            seconds=scaled.seconds,
            logits_NC=model.logits_NC,
            standard_error_s=scaled.standard_error_s,
        )

    note = f"fp32, batch 1, {format_count(num_threads, 'thread')}"
    if len(sample_S) < len(rows):
        how = "median text x texts" if padded_to else "evenly over sorted lengths, by tokens"
        note += f"; scaled from {len(sample_S):,} of {len(rows):,} texts ({how})"
    return AblationStep(
        name=name,
        run=run,
        num_tokens=int(computed_S.sum()),
        timed_rows=len(sample_S),
        tokenization_s=model.texts.tokenization_s,
        note=_joined(model.note, note),
    )


def graph_step(name: str, graph: GraphModel, *, num_threads: int) -> AblationStep:
    """A graph in one session on all cores, one text at a time, unpadded, in the file's order."""
    rows = graph.texts.rows

    def run(on_tokens: OnTokens) -> Timing:
        start = time.perf_counter()
        engine = OnnxEngine(graph.path, num_threads=num_threads)
        logits = []
        for row in range(len(rows)):
            rows_B = np.array([row])
            ids_BT = rows.batch_ids(rows_B)
            logits.append(engine.run(ids_BT, rows.batch_types(rows_B)))
            on_tokens(ids_BT.size)
        seconds = time.perf_counter() - start
        return Timing(seconds=seconds, logits_NC=np.concatenate(logits))

    how = f"batch 1, {format_count(num_threads, 'thread')}, session creation included"
    return _step_of_graph(name, graph, run, how)


def instances_step(
    name: str, graph: GraphModel, *, cpus_of_instance: Sequence[tuple[int, ...]]
) -> AblationStep:
    """A graph in one session for each core; the sessions share length-sorted batches.

    Instances are threads of this process, each pinned, each with a session of one thread: ONNX
    Runtime releases the interpreter while it computes. A free instance takes the next batch.
    """
    rows = graph.texts.rows
    batches = plan_batches(rows.lengths_N, max_batch_tokens=graph.max_batch_tokens)

    def run(on_tokens: OnTokens) -> Timing:
        pending: queue.SimpleQueue[NDArray[np.intp]] = queue.SimpleQueue()
        for batch in batches:
            pending.put(batch)
        is_stopped = threading.Event()

        def work(cpus: tuple[int, ...]) -> list[tuple[NDArray[np.intp], NDArray[np.float32]]]:
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, cpus)  # of this thread alone, which ends with the run
            engine = OnnxEngine(graph.path, num_threads=1)
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

    instances = format_count(len(cpus_of_instance), "instance")
    how = (
        f"{instances} x 1 thread, length-sorted batches of up to {graph.max_batch_tokens:,} "
        "tokens, session creation included"
    )
    return _step_of_graph(name, graph, run, how)


def _step_of_graph(
    name: str, graph: GraphModel, run: Callable[[OnTokens], Timing], how: str
) -> AblationStep:
    rows = graph.texts.rows
    return AblationStep(
        name=name,
        run=run,
        num_tokens=int(rows.lengths_N.sum()),
        timed_rows=len(rows),
        tokenization_s=graph.texts.tokenization_s,
        note=_joined(graph.note, how),
    )


def _inputs(
    model: PreTrainedModel, rows: TokenizedRows, row: int, padded_to: int | None
) -> dict[str, torch.Tensor]:
    """Inputs of the model for one text, as its own tokenizer would give them."""
    rows_B = np.array([row])
    ids = torch.from_numpy(rows.batch_ids(rows_B))
    types = torch.from_numpy(rows.batch_types(rows_B))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if takes_token_types(model):
        inputs["token_type_ids"] = types
    if padded_to is None:
        return inputs
    missing = padded_to - ids.shape[1]
    fill = {"input_ids": model.config.pad_token_id or 0}
    return {
        name: torch.nn.functional.pad(values, (0, missing), value=fill.get(name, 0))
        for name, values in inputs.items()
    }


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
