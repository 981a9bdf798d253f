"""A graph on a device: token ids in, logits out.

    batches -> [engine] -> logits

The engine knows nothing of text, labels or shards. ONNX Runtime's own defaults are for servers:
it takes every core of the host, keeps the memory of the largest shape it ever saw, and fuses
Add + LayerNormalization into a kernel that is scalar on the CPU; this module changes each of these.
A runtime is loaded when its first engine is made, so that reading a bundle does not wait for it.
Engines on other devices and of other makers are in `engines`.

Shape suffixes: B rows of a batch, T tokens of each, C outputs.
"""

import ctypes
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastformers.errors import BundleError, FastformersError
from fastformers.inference.batching import in_row_order, plan_batches
from fastformers.inference.tokenizer import TokenizedRows

Device = Literal["cpu", "cuda"]
# Parameters of glibc's mallopt (malloc.h), and the largest mmap threshold that it accepts.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MALLOC_KEEPS_BYTES, _MMAP_FROM_BYTES = 64 * 2**20, 32 * 2**20

_Batch = TypeVar("_Batch")


class EngineError(FastformersError):
    """The runtime failed on one batch; `scorer.py` looks for the row that causes it."""


class Engine(Protocol):
    """Anything that can run a bundle's graph."""

    @property
    def name(self) -> str:
        """Engine and version, as stored with measurements."""
        ...

    @property
    def num_in_flight(self) -> int:
        """Batches that `run` should be given at once, from as many threads; 1 for CPUs."""
        ...

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs of the graph."""
        ...

    @property
    def num_outputs(self) -> int:
        """Outputs of the graph for a row, C."""
        ...

    def run(
        self, ids_BT: NDArray[np.int64], types_BT: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """Logits (B, C) of one batch of rows of equal length."""
        ...


def run_batches(engine: Engine, run: Callable[[_Batch], object], batches: Iterable[_Batch]) -> None:
    """Run batches with as many of them at the engine as it asks for.

    A GPU computes one batch while the next is gathered and moved. What `run` raises is raised here.

    Args:
        engine: Engine that `run` uses.
        run: Function that computes one batch and keeps its result; it is called from threads where
            the engine takes several batches at once.
        batches: What `run` takes, in the order in which they are begun.
    """
    if engine.num_in_flight == 1:
        for batch in batches:
            run(batch)
        return
    with ThreadPoolExecutor(engine.num_in_flight) as threads:
        for _ in threads.map(run, batches):
            pass


@dataclass(frozen=True, kw_only=True)
class GraphInputs:
    """What ONNX Runtime says of a graph's inputs and output.

    Attributes:
        names: Names of the inputs.
        id_type: Type of token ids and token types; graphs for GPUs take int32.
        num_outputs: Outputs for a row, C.
    """

    names: tuple[str, ...]
    id_type: type[np.signedinteger[Any]]
    num_outputs: int

    def feed(
        self, ids_BT: NDArray[np.integer], types_BT: NDArray[np.integer] | None
    ) -> dict[str, NDArray[np.integer]]:
        """The graph's inputs for a batch, by their names."""
        feed = {"input_ids": ids_BT.astype(self.id_type, copy=False)}
        if "token_type_ids" in self.names and types_BT is not None:
            feed["token_type_ids"] = types_BT.astype(self.id_type, copy=False)
        return feed


def read_graph_inputs(session: Any, model: Path) -> GraphInputs:
    """What a session of ONNX Runtime says of its graph.

    Raises:
        BundleError: The graph's output is not rows and outputs.
    """
    inputs, shape = session.get_inputs(), session.get_outputs()[0].shape
    if len(shape) != 2:
        raise BundleError(f"{model}: gives {shape}, not rows and outputs; make the bundle again")
    return GraphInputs(
        names=tuple(entry.name for entry in inputs),
        id_type=np.int32 if inputs[0].type == "tensor(int32)" else np.int64,
        num_outputs=shape[1],
    )


def first_line(error: Exception) -> str:
    """What an error says, up to the end of its first line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class OnnxEngine:
    """ONNX Runtime, on the CPU cores that the calling process owns."""

    num_in_flight = 1

    def __init__(self, model: Path, *, num_threads: int = 1) -> None:
        """Load a graph.

        Args:
            model: ONNX file.
            num_threads: Threads of the session: as many as the actor owns cores; 0 for all cores.

        Raises:
            BundleError: ONNX Runtime cannot load the file.
        """
        import onnxruntime

        keep_freed_memory()
        self._name = f"onnxruntime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # Shapes vary with every batch: a pattern or an arena would keep the worst of them forever.
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4  # its errors reach the caller as exceptions
        try:
            self._session = onnxruntime.InferenceSession(
                model,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["SkipLayerNormFusion"],
            )
        except Exception as error:  # its exception classes share no base but Exception
            raise BundleError(f"{model}: ONNX Runtime cannot load it: {error}") from error
        self._inputs = read_graph_inputs(self._session, model)
        self.input_names = self._inputs.names
        self.num_outputs = self._inputs.num_outputs

    @property
    def name(self) -> str:
        """Engine and version."""
        return self._name

    def run(
        self, ids_BT: NDArray[np.int64], types_BT: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """Logits (B, C) of one batch.

        Raises:
            EngineError: The runtime failed, for example on a token id without an embedding.
        """
        feed = self._inputs.feed(ids_BT, types_BT)
        try:
            logits_BC: NDArray[np.float32] = self._session.run(["logits"], feed)[0]
        except Exception as error:  # its exception classes share no base but Exception
            raise EngineError(first_line(error)) from error
        return logits_BC


def keep_freed_memory() -> None:
    """Let malloc keep up to 64 MiB of what a batch freed for the next one, in this process.

    Without an arena, ONNX Runtime returns all activations to malloc after each batch. By itself
    glibc hands them back to the kernel as soon as they are more than a few MiB, and the next batch
    waits for a page fault every 4 KiB: with batches of 2,048 tokens, 28% of the time (student
    4 x 312, one core; other budgets: fastformers/benchmark/README.md). Where there is no mallopt
    (musl, macOS), nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _MALLOC_KEEPS_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_FROM_BYTES)


def run_graph(
    path: Path, rows: TokenizedRows, *, max_batch_tokens: int = 1024
) -> NDArray[np.float32]:
    """Logits (N, C) of a graph on rows, in the batches that scoring would form."""
    engine = OnnxEngine(path, num_threads=0)
    batches = plan_batches(rows.lengths_N, max_batch_tokens=max_batch_tokens)
    logits = [engine.run(rows.batch_ids(rows_B), rows.batch_types(rows_B)) for rows_B in batches]
    return in_row_order(logits, batches)
