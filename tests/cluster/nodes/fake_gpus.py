"""An engine in the place of the one for GPUs, in all processes of a Ray cluster without any GPU."""

import json
import os
import time
from pathlib import Path

from fastformers.inference import engines
from fastformers.inference.engine import OnnxEngine

LOG = "FAKE_GPU_LOG"


class SleepingEngine(OnnxEngine):
    """Computes on a CPU, takes its time, and writes down which card its process sees."""

    name = "onnxruntime-cuda of a test"

    def __init__(self, model):
        super().__init__(model)
        seen = {
            "pid": os.getpid(),
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "order": os.environ.get("CUDA_DEVICE_ORDER"),
            "cpus": sorted(os.sched_getaffinity(0)),
        }
        Path(os.environ[LOG], f"{os.getpid()}.json").write_text(json.dumps(seen))

    def run(self, ids_BT, types_BT):
        time.sleep(0.005)
        return super().run(ids_BT, types_BT)


def use_fake_engine():
    """Open the engine of this module for GPUs, in this process."""
    engines.ENGINES[engines.CUDA_ENGINE] = engines.EngineEntry(
        open=lambda model, num_threads: SleepingEngine(model), package="onnxruntime", device="cuda"
    )


def read_seen(directory):
    """What the processes that have opened the engine saw."""
    return [json.loads(path.read_text()) for path in Path(directory).glob("*.json")]
