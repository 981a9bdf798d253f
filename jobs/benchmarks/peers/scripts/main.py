"""Run the job baseline that the command line names, on the work that stands on stdin.

Work -> [main] -> scripts -> last line of stdout

A baseline that cannot run as it should ends with its reason as the last line of stderr.
"""

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from fastformers.jobs.benchmarks.peers.scripts import (
    fasttext_classifier,
    pipelines,
    ray_data,
    sentence_encoders,
    text_embeddings,
    vllm_pooling,
)
from fastformers.jobs.benchmarks.peers.scripts.work import Work, refuse

RUN: dict[str, Callable[[Work], dict[str, Any]]] = {
    "ray-tuned": ray_data.run_tuned,
    "ray-expert": ray_data.run_expert,
    "ray-expert-float32": ray_data.run_expert_float32,
    "ray-guide": ray_data.run_guide,
    "ray-padded-64": ray_data.run_padded,
    "sentence-transformers-openvino": sentence_encoders.run_openvino,
    "sentence-transformers-onnx": sentence_encoders.run_onnx,
    "text-embeddings-inference": text_embeddings.run_router,
    "vllm": vllm_pooling.run_vllm,
    "pipeline": pipelines.run_pipeline,
    "fasttext": fasttext_classifier.run_fasttext,
}


def main() -> int:
    """Run the baseline that the command line names."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    work = Work.from_json(sys.stdin.read())
    try:
        answer = RUN[sys.argv[1]](work)
    except Exception as error:  # whatever it is, it is the reason why this one does not run
        traceback.print_exc()
        raise refuse(f"{type(error).__name__}: {error}") from None
    print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
