"""A graph on a device: token ids in, logits out.

    batches -> [engine] -> logits

The engine knows nothing of text, labels or shards. ONNX Runtime's own defaults are for servers:
it takes every core of the host, keeps the memory of the largest shape it ever saw, and fuses
Add + LayerNormalization into a kernel that is scalar on the CPU; this module changes each of these.
On a GPU that fusion is fast and stays on; graphs there are float16 or float32, because the int8
operators have CPU kernels only. A runtime is loaded when its first engine is made, so that reading
a bundle does not wait for it.
"""

import ctypes
import sys
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fastformers.errors import BundleError, FastformersError, InputError
from fastformers.inference.batching import in_row_order, plan_batches
from fastformers.inference.tokenizer import TokenizedRows

Device = Literal["cpu", "cuda"]
_PROVIDERS: dict[Device, list[str]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}
# Parameters of glibc's mallopt (malloc.h), and the largest mmap threshold that it accepts.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MALLOC_KEEPS_BYTES, _MMAP_FROM_BYTES = 64 * 2**20, 32 * 2**20


class EngineError(FastformersError):
    """The runtime failed on one batch; `scorer.py` looks for the row that causes it."""


class Engine(Protocol):
    """Anything that can run a bundle's graph."""

    @property
    def name(self) -> str:
        """Engine and version, as stored with measurements."""
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


class OnnxEngine:
    """ONNX Runtime, on the CPU cores that the calling process owns or on its GPU."""

    def __init__(self, model: Path, *, num_threads: int = 1, device: Device = "cpu") -> None:
        """Load a graph.

        Args:
            model: ONNX file.
            num_threads: Threads of the session: as many as the actor owns cores; 0 for all cores.
            device: "cuda" is the first GPU that the process sees.

        Raises:
            BundleError: ONNX Runtime cannot load the file.
            InputError: The device is not there, or this onnxruntime was built without it.
        """
        import onnxruntime

        if device == "cuda":
            _load_cuda()
        else:
            _keep_freed_memory()
        suffix = "" if device == "cpu" else f" {device}"
        self._name = f"onnxruntime {onnxruntime.__version__}{suffix}"
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
                providers=_PROVIDERS[device],
                disabled_optimizers=["SkipLayerNormFusion"] if device == "cpu" else [],
            )
        except Exception as error:  # its exception classes share no base but Exception
            raise BundleError(f"{model}: ONNX Runtime cannot load it: {error}") from error
        if self._session.get_providers()[0] != _PROVIDERS[device][0]:
            raise InputError(
                "device cuda: ONNX Runtime cannot start CUDA here; check nvidia-smi, and that its "
                "CUDA and cuDNN are installed: pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )
        inputs = self._session.get_inputs()
        self.input_names = tuple(entry.name for entry in inputs)
        self._id_type = np.int32 if inputs[0].type == "tensor(int32)" else np.int64
        shape = self._session.get_outputs()[0].shape
        if len(shape) != 2:
            raise BundleError(
                f"{model}: gives {shape}, not rows and outputs; make the bundle again"
            )
        self.num_outputs: int = shape[1]

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
        feed: dict[str, Any] = {"input_ids": ids_BT.astype(self._id_type, copy=False)}
        if "token_type_ids" in self.input_names and types_BT is not None:
            feed["token_type_ids"] = types_BT.astype(self._id_type, copy=False)
        try:
            logits_BC: NDArray[np.float32] = self._session.run(["logits"], feed)[0]
        except Exception as error:  # its exception classes share no base but Exception
            raise EngineError(str(error).splitlines()[0]) from error
        return logits_BC


def _keep_freed_memory() -> None:
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


def _load_cuda() -> None:
    """Make the CUDA that pip installed known to ONNX Runtime; refuse a build without CUDA."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise InputError(
            "device cuda: this onnxruntime is built for the CPU only; pip uninstall onnxruntime, "
            "then pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    onnxruntime.preload_dlls()


def run_graph(
    path: Path, rows: TokenizedRows, *, max_batch_tokens: int = 1024
) -> NDArray[np.float32]:
    """Logits (N, C) of a graph on rows, in the batches that scoring would form."""
    engine = OnnxEngine(path, num_threads=0)
    batches = plan_batches(rows.lengths_N, max_batch_tokens=max_batch_tokens)
    logits = [engine.run(rows.batch_ids(rows_B), rows.batch_types(rows_B)) for rows_B in batches]
    return in_row_order(logits, batches)
