"""ONNX Runtime on a GPU: a bundle's float16 graph, in batches as large as the card's memory allows.

    batches -> [cuda] -> logits

Token ids are bound on the device and logits on the host, anew for each batch, because its shape is
another one. Three batches are at the engine at once (`run_batches`), so that the card computes one
while the ids of the next are gathered and moved and the logits of the last are read. A batch that
does not fit is computed in parts of half its size at most, and from then on no larger one is tried
in this process: what batches are planned does not depend on it. Which row is at fault is never the
question here: token ids are checked before they are on the card, which reads past its table
without a word. Like engine.py, this module knows nothing of text.

Shape suffixes: B rows of a batch, T tokens of each, C outputs.
"""

import logging
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastformers.errors import BundleError, InputError, NodeUnfitError
from fastformers.inference.engine import (
    EngineError,
    GraphInputs,
    first_line,
    keep_freed_memory,
    read_graph_inputs,
)
from fastformers.inference.engines.cuda_setup import HOW_TO_INSTALL, check_cuda, read_card_name
from fastformers.inference.onnx_files import VOCABULARY_KEY

logger = logging.getLogger(__name__)

_PROVIDER, _DEVICE, _ARENA = "CUDAExecutionProvider", "cuda", "gpu:0"
# Attention kernels that ONNX Runtime may choose, as bits (AttentionBackend): flash, else memory
# efficient (scores with a bias), else TensorRT's (compute capability 7.5). Its own first choice on
# an H200, cuDNN's, is 2 to 8% faster once a shape has run, but plans each new shape for 70 to 90 ms
# and forgets: BERT-base at BoolQ's 325 shapes has 1,086 rows/s with it and 16,218 without (1.31.1).
SDPA_KERNELS = 1 | 2 | 4
# Flash attention works in blocks of 128 tokens, the memory efficient one in smaller ones: for rows
# of 16, 32 and 64 tokens the whole of BERT-base is 1.18, 1.13 and 1.06 times as fast with it, the
# student of 4 x 312 1.41, 1.21 and 1.14 times; at 96 it loses (H200, 1.31.1). The choice is a
# session's, so that there are two, and a graph's weights are on the card twice.
SHORT_SDPA_KERNEL, SHORT_LENGTH = 2, 64
# The variances of SkipLayerNormalization are sums in float32, not in float16, which overflows: ONNX
# Runtime issue 29034. The head of a model is in float32 and stays there. Memory grows by what is
# asked for: shapes vary, and powers of two would double what is held.
_OPTIONS = {
    "device_id": "0",  # of those that this process sees
    "enable_skip_layer_norm_strict_mode": "1",
    "use_tf32": "0",
    "arena_extend_strategy": "kSameAsRequested",
}
# On an H200, two are 1.02 times (BERT-base) and 1.13 times (4 x 312) as fast as one, three 1.04
# and 1.17 times; a session for each is no faster.
_BATCHES_IN_FLIGHT = 3


class CudaEngine:
    """ONNX Runtime on the first GPU that the process sees.

    Attributes:
        card: Name of the GPU.
        lowered_to: Tokens of the largest batch after memory did not suffice; None while it does.
    """

    num_in_flight = _BATCHES_IN_FLIGHT

    def __init__(self, model: Path) -> None:
        """Load a graph onto the card.

        Args:
            model: ONNX file with a float16 graph.

        Raises:
            InputError: CUDA cannot be used here; says what to install.
            BundleError: ONNX Runtime cannot load the file, or it is a graph for CPUs.
        """
        check_cuda()
        keep_freed_memory()
        import onnxruntime

        self.card = read_card_name()
        self._runtime = onnxruntime
        self._short_session = _open_session(onnxruntime, model, SHORT_SDPA_KERNEL)
        self._session = _open_session(onnxruntime, model, SDPA_KERNELS)
        self._inputs: GraphInputs = read_graph_inputs(self._session, model)
        metadata = self._session.get_modelmeta().custom_metadata_map
        if VOCABULARY_KEY not in metadata:
            raise BundleError(f"{model}: is a graph for CPUs; compress --precision float16")
        self._vocabulary = int(metadata[VOCABULARY_KEY])
        self.lowered_to: int | None = None
        self._has_failed = False
        self._lock = Lock()

    @property
    def name(self) -> str:
        """Engine, version and GPU: what a measurement is valid for."""
        return f"onnxruntime-cuda {self._runtime.__version__} on {self.card}"

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs of the graph."""
        return self._inputs.names

    @property
    def num_outputs(self) -> int:
        """Outputs of the graph for a row, C."""
        return self._inputs.num_outputs

    def run(
        self, ids_BT: NDArray[np.integer], types_BT: NDArray[np.integer] | None
    ) -> NDArray[np.float32]:
        """Logits (B, C) of one batch, in parts where memory does not suffice; thread-safe.

        Raises:
            EngineError: A token id has no embedding.
            NodeUnfitError: The card fails on a single row.
        """
        if (largest := int(ids_BT.max())) >= self._vocabulary:
            raise EngineError(
                f"token id {largest} is out of bounds: there are {self._vocabulary} embeddings"
            )
        num_rows = len(ids_BT)
        if self.lowered_to is None or ids_BT.size <= self.lowered_to or num_rows == 1:
            try:
                return self._compute(ids_BT, types_BT)
            except Exception as error:  # its exception classes share no base but Exception
                if num_rows == 1:
                    raise NodeUnfitError(
                        f"device cuda: {self.card} fails on a row of {ids_BT.size} tokens; is it "
                        f"full with other work? {first_line(error)}"
                    ) from error
                self._lower(ids_BT.size // 2, error)
        assert self.lowered_to is not None, "a batch as large as it was is tried once"
        num_parts = -(-num_rows // max(1, self.lowered_to // ids_BT.shape[1]))
        parts = zip(
            np.array_split(ids_BT, num_parts),
            [None] * num_parts if types_BT is None else np.array_split(types_BT, num_parts),
            strict=True,
        )
        return np.concatenate([self.run(*part) for part in parts])

    def _compute(
        self, ids_BT: NDArray[np.integer], types_BT: NDArray[np.integer] | None
    ) -> NDArray[np.float32]:
        session = self._short_session if ids_BT.shape[1] <= SHORT_LENGTH else self._session
        binding = session.io_binding()
        for name, array in self._inputs.feed(ids_BT, types_BT).items():
            value = self._runtime.OrtValue.ortvalue_from_numpy(array, _DEVICE, 0)
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("logits", "cpu")
        options = self._runtime.RunOptions()
        if self._has_failed:  # give back what the batch that did not fit had taken
            self._has_failed = False
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", _ARENA)
        session.run_with_iobinding(binding, options)
        logits_BC: NDArray[np.float32] = binding.get_outputs()[0].numpy()
        return logits_BC

    def _lower(self, num_tokens: int, error: Exception) -> None:
        """Let no batch be larger than this from now on."""
        with self._lock:
            if self.lowered_to is not None and self.lowered_to <= num_tokens:
                return
            self.lowered_to, self._has_failed = num_tokens, True
        logger.warning(
            "%s: a batch of %s tokens did not fit (%s); from now on batches of up to %s",
            self.card,
            f"{2 * num_tokens:,}",
            first_line(error),
            f"{num_tokens:,}",
        )


def _open_session(onnxruntime: Any, model: Path, sdpa_kernels: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # what little is left on the CPU
    options.enable_mem_pattern = False  # shapes vary with every batch
    options.log_severity_level = 4  # its errors reach the caller as exceptions
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    cuda_options = {**_OPTIONS, "sdpa_kernel": str(sdpa_kernels)}
    providers = [(_PROVIDER, cuda_options), "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # its exception classes share no base but Exception
        raise BundleError(f"{model}: ONNX Runtime cannot load it: {first_line(error)}") from error
    if session.get_providers()[0] != _PROVIDER:
        raise InputError(
            "device cuda: ONNX Runtime does not start CUDA here, though all that it needs loads; "
            f"check nvidia-smi, or install it anew: {HOW_TO_INSTALL}"
        )
    return session
