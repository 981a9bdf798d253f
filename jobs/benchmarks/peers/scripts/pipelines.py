"""Hugging Face's `pipeline("text-classification")` on all cores.

Work -> [pipelines] -> predictions

Without batching, as its documentation advises for CPUs.
"""

from typing import Any

from fastformers.jobs.benchmarks.peers.scripts.work import Clock, Work, read_share, write_share


def run_pipeline(work: Work) -> dict[str, Any]:
    """One process of as many threads as there are cores."""
    import pyarrow.parquet  # noqa: F401
    import torch
    from transformers import pipeline

    torch.set_num_threads(work.num_workers)
    clock = Clock(work)
    classify = pipeline("text-classification", model=work.model, device="cpu")
    ids, texts = read_share(work)
    found = classify(texts, truncation=True, max_length=work.max_length)
    write_share(work, 0, ids, label=[prediction["label"] for prediction in found])
    clock.stop()
    setting = f"PyTorch float32, no batching, {work.num_workers} threads"
    return clock.answer(setting, ("transformers", "torch"))
