"""The whole jobs that `fastformers bench` compares with, as their users would write them.

    python baseline_scripts.py {ray-tuned,sentence-transformers,ray-padded-64,pipeline} < WORK.json

Run by job_baselines.py beside it under any interpreter that has the library; imports nothing of
ours. Prints one line of JSON: rows, seconds, setting, versions. The clock starts when libraries are
imported and Ray is up, and runs over everything that depends on the work: models are loaded within
it.

ray-tuned: Ray Data as an expert would tune it: `map_batches` of an actor class, large batches that
    are sorted by length inside, 32 rows at a time, one thread an actor, the tokenizer's threads
    off, ONNX Runtime's stock int8 graph.
sentence-transformers: the same encoder, mean pooling, no head. Where `optimum` is installed, its
    ONNX int8 backend, one process of one thread for each core; its sessions cannot be sent to its
    own multi-process pool, so the processes are ours. Else its PyTorch backend in that pool.
ray-padded-64: Ray Data without that tuning: batches of 64 rows in corpus order, each padded to the
    longest text of the batch, the same stock int8 graph, one thread an actor. No page of Ray's
    documentation shows this job: it is what `map_batches` gives if nothing is done about lengths.
pipeline: Hugging Face's `pipeline("text-classification")` on all cores, without batching, as its
    documentation advises for CPUs.
"""

import importlib.metadata
import importlib.util
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

# Python looks first beside a script that it runs by path, where tables.py would hide PyTables.
sys.path[:] = [path for path in sys.path if path != str(Path(__file__).resolve().parent)]

_PADDED_ROWS, _TUNED_ROWS, _SORTED_ROWS = 64, 3125, 32


class Predictor:
    """The actor class of a Ray Data job: tokenizer and stock graph, one thread."""

    def __init__(self, work: dict[str, Any], tuned: bool) -> None:
        if tuned:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
        import numpy as np
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            work["stock_graph"], options, providers=["CPUExecutionProvider"]
        )
        self._types = {
            entry.name: np.int32 if "int32" in entry.type else np.int64
            for entry in self._session.get_inputs()
        }
        self._tokenizer = Tokenizer.from_file(work["tokenizer"])
        self._tokenizer.enable_truncation(work["max_length"])
        self._tokenizer.no_padding()
        self._tuned = tuned

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(batch["text"]))]
        if not self._tuned:
            return {"id": batch["id"], "logits": self._logits(ids)}
        order = np.argsort([len(row) for row in ids], kind="stable")
        parts = [
            self._logits([ids[row] for row in order[start : start + _SORTED_ROWS]])
            for start in range(0, len(order), _SORTED_ROWS)
        ]
        return {"id": batch["id"], "logits": np.concatenate(parts)[np.argsort(order)]}

    def _logits(self, ids: list[list[int]]) -> Any:
        import numpy as np

        padded = np.zeros((len(ids), max(map(len, ids))), np.int64)
        mask = np.zeros_like(padded)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        inputs = {
            "input_ids": padded,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(padded),
        }
        feed = {name: inputs[name].astype(kind) for name, kind in self._types.items()}
        return self._session.run(None, feed)[0]


def run_ray_data(work: dict[str, Any], *, tuned: bool) -> dict[str, Any]:
    """Ray Data, from Parquet to Parquet."""
    import pyarrow.dataset
    import ray

    ray.init(
        num_cpus=work["num_workers"] + 1,
        include_dashboard=False,
        logging_level="error",
        log_to_driver=False,
    )
    output = f"{work['scratch']}/ray-{time.time_ns()}"
    num_rows = _TUNED_ROWS if tuned else _PADDED_ROWS
    start = time.perf_counter()
    (
        ray.data.read_parquet(list(work["files"]))
        .map_batches(
            Predictor,
            fn_constructor_args=(work, tuned),
            batch_size=num_rows,
            compute=ray.data.ActorPoolStrategy(size=work["num_workers"]),
            num_cpus=1,
        )
        .write_parquet(output)
    )
    seconds = time.perf_counter() - start
    rows = pyarrow.dataset.dataset(output).count_rows()
    ray.shutdown()
    order = (
        f"sorted inside, {_SORTED_ROWS} at a time"
        if tuned
        else "in corpus order, padded to the longest"
    )
    setting = f"map_batches of {num_rows} rows {order}, {work['num_workers']} actors of one thread"
    return _result(rows, seconds, setting, ("ray", "onnxruntime", "tokenizers"))


def run_sentence_transformers(work: dict[str, Any]) -> dict[str, Any]:
    """sentence-transformers' encoder on as many processes as there are cores."""
    import sentence_transformers
    import transformers

    transformers.utils.logging.set_verbosity_error()
    texts, num_workers = _read_texts(work), work["num_workers"]
    if importlib.util.find_spec("optimum") is None:
        start = time.perf_counter()
        model = sentence_transformers.SentenceTransformer(work["model"], device="cpu")
        model.max_seq_length = work["max_length"]
        pool = model.start_multi_process_pool(["cpu"] * num_workers)
        rows = len(model.encode(texts, pool=pool, batch_size=_SORTED_ROWS))
        model.stop_multi_process_pool(pool)
        seconds = time.perf_counter() - start
        setting = f"PyTorch float32 backend, its pool of {num_workers} processes"
        return _result(rows, seconds, setting, ("sentence-transformers", "torch", "transformers"))
    from multiprocessing import get_context

    quantized = f"{work['scratch']}/sentence-transformers"
    if not Path(quantized).exists():  # made once, as a user would, and not timed
        model = sentence_transformers.SentenceTransformer(
            work["model"], backend="onnx", device="cpu"
        )
        model.save_pretrained(quantized)
        config = _quantization()
        sentence_transformers.export_dynamic_quantized_onnx_model(model, config, quantized)
    start = time.perf_counter()
    with get_context("spawn").Pool(num_workers) as pool:
        shares = [
            (quantized, texts[n::num_workers], work["max_length"]) for n in range(num_workers)
        ]
        rows = sum(pool.starmap(encode_share, shares, chunksize=1))
    seconds = time.perf_counter() - start
    setting = f"ONNX int8 backend ({_quantization()}), {num_workers} processes of one thread"
    return _result(rows, seconds, setting, ("sentence-transformers", "optimum", "onnxruntime"))


def encode_share(directory: str, texts: list[str], max_length: int) -> int:
    """Encode one process's share of the texts; returns how many there were."""
    import onnxruntime
    import sentence_transformers

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = sentence_transformers.SentenceTransformer(
        directory,
        backend="onnx",
        device="cpu",
        model_kwargs={
            "file_name": f"model_{_file_suffix()}.onnx",
            "provider": "CPUExecutionProvider",
            "session_options": options,
        },
    )
    model.max_seq_length = max_length
    return len(model.encode(texts, batch_size=_SORTED_ROWS))


def run_pipeline(work: dict[str, Any]) -> dict[str, Any]:
    """Hugging Face's pipeline on all cores."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(work["num_workers"])
    texts = _read_texts(work)
    start = time.perf_counter()
    classify = transformers.pipeline("text-classification", model=work["model"], device="cpu")
    rows = len(classify(texts, truncation=True, max_length=work["max_length"]))
    seconds = time.perf_counter() - start
    setting = f"PyTorch float32, no batching, {work['num_workers']} threads"
    return _result(rows, seconds, setting, ("transformers", "torch"))


def _quantization() -> str:
    """sentence-transformers' name of the int8 form that suits this processor."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    if "avx512_vnni" in flags:
        return "avx512_vnni"
    return "avx512" if "avx512f" in flags else "avx2"


def _file_suffix() -> str:
    kind = _quantization()
    return f"quint8_{kind}" if kind == "avx2" else f"qint8_{kind}"


def _read_texts(work: dict[str, Any]) -> list[str]:
    import pyarrow.parquet

    tables = [pyarrow.parquet.read_table(file, columns=["text"]) for file in work["files"]]
    return [text for table in tables for text in table["text"].to_pylist()]


def _result(rows: int, seconds: float, setting: str, packages: tuple[str, ...]) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"rows": rows, "seconds": seconds, "setting": setting, "versions": versions}


def main() -> int:
    """Run the baseline that the command line names."""
    name, work = sys.argv[1], json.load(sys.stdin)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if name == "sentence-transformers":
        os.environ["OMP_NUM_THREADS"] = "1"  # a process for each core, so a thread for each
        result = run_sentence_transformers(work)
    elif name == "pipeline":
        result = run_pipeline(work)
    else:
        result = run_ray_data(work, tuned=name == "ray-tuned")
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
