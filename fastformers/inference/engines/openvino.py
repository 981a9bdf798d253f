"""OpenVINO on the CPU cores that the calling process owns, reading the bundle's own ONNX file.

    batches -> [openvino] -> logits

OpenVINO's importer knows the graph's operators: MatMulIntegerToFloat becomes an int8
FullyConnected, either kind of attention a ScaledDotProductAttention; nothing is translated here.
Shapes stay dynamic: OpenVINO keeps the kernels of shapes that it has seen, and the first batch of a
new shape costs a few milliseconds more. Like engine.py, this module knows nothing of text.
"""

import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastformers.errors import BundleError
from fastformers.inference.engine import EngineError
from fastformers.inference.onnx_files import TOKEN_EMBEDDINGS

# Where layers drop tokens, some must reach the last one; 512 run by other code, which is right.
_WARM_UP_TOKENS = 64


def load_openvino() -> Any:
    """OpenVINO's module, without what reports to its makers.

    That report is sent from a process that it forks, and which may never end where this one has
    threads. OpenVINO and NNCF do without where its package is not there.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@cache
def open_core() -> Any:
    """OpenVINO, once for this process.

    Each `Core` that compiles for the CPU gives the thread another stack for signals and takes it
    away in the end. Where several end in another order than the reverse of their beginning, what is
    left is no memory (2026.4), and the next signal, Ctrl-C for example, is a segmentation fault.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
    """
    return load_openvino().Core()


class OpenVinoEngine:
    """OpenVINO's CPU plugin, tuned for one batch at a time."""

    num_in_flight = 1

    def __init__(self, model: Path, *, num_threads: int = 1) -> None:
        """Load and compile a graph.

        Args:
            model: ONNX file.
            num_threads: Threads of one batch: as many as the actor owns cores.

        Raises:
            ModuleNotFoundError: OpenVINO is not installed; `open_engine` checks that first.
            BundleError: OpenVINO cannot load the file.
        """
        openvino, core = load_openvino(), open_core()
        try:
            graph = core.read_model(model)
            compiled = core.compile_model(
                graph,
                "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_NUM_THREADS": num_threads,
                    "ENABLE_CPU_PINNING": False,  # the actor has pinned the process already
                    # Where the CPU has bfloat16, the default would round what the bundle's
                    # quality was measured without.
                    "INFERENCE_PRECISION_HINT": "f32",
                },
            )
        except RuntimeError as error:
            raise BundleError(
                f"{model}: OpenVINO cannot load it: {_last_line(error)}; use --engine onnxruntime"
            ) from error
        self._version = openvino.__version__.partition("-")[0]
        self._request: Any = compiled.create_infer_request()
        self._vocab_size = _count_embeddings(graph, model)
        self.input_names = tuple(entry.any_name for entry in compiled.inputs)
        self.num_outputs = int(compiled.outputs[0].partial_shape[1].get_length())
        self._warm_up()

    def _warm_up(self) -> None:
        """Have all layers see several tokens before one of them sees a single one.

        Attention whose first row has one token is wrong for all longer rows after it (2026.4.1);
        in the other order it is right.
        """
        ids_BT = np.zeros((1, _WARM_UP_TOKENS), np.int64)
        with suppress(EngineError):  # where the graph's rows are shorter
            self.run(ids_BT, ids_BT)

    @property
    def name(self) -> str:
        """Engine and version."""
        return f"openvino {self._version}"

    def run(
        self, ids_BT: NDArray[np.int64], types_BT: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """Logits (B, C) of one batch.

        Raises:
            EngineError: The runtime failed, or a token id has no embedding.
        """
        # OpenVINO's Gather gives zeros for an index that is out of bounds.
        if (largest := int(ids_BT.max())) >= self._vocab_size:
            raise EngineError(
                f"token id {largest} is out of bounds: there are {self._vocab_size} embeddings"
            )
        feed = {"input_ids": ids_BT}
        if "token_type_ids" in self.input_names and types_BT is not None:
            feed["token_type_ids"] = types_BT
        try:
            logits_BC: NDArray[np.float32] = self._request.infer(feed, share_inputs=True)["logits"]
        except RuntimeError as error:
            raise EngineError(_last_line(error)) from error
        return logits_BC


def _count_embeddings(graph: Any, model: Path) -> int:
    for node in graph.get_ops():
        if node.get_friendly_name() == TOKEN_EMBEDDINGS:
            return int(node.get_output_shape(0)[0])
    raise BundleError(f"{model}: has no initializer {TOKEN_EMBEDDINGS!r}; make the bundle again")


def _last_line(error: Exception) -> str:
    """The line that says what went wrong; those before it name places in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
