"""Ray Data, in the ways that it is run for this work.

Work -> [ray_data] -> predictions

ray-guide: the class of Ray's own guide, "Working with Text", section "Performing inference on
    text": a Hugging Face `pipeline("text-classification")` in `map_batches` with an
    `ActorPoolStrategy` and the default batch size. Two things are added, without which it could
    not do this work: the model's directory, and `truncation`. Newer revisions of the page write
    `batch_size="auto"`; the pipeline takes one text after the other within a batch of any size.
ray-expert: what an expert would write for the newest Ray Data: its default batch size, which is a
    whole block, an `ActorPoolStrategy`, and a class that sorts the texts of its block by length and
    fills batches up to a budget of tokens; ONNX Runtime's stock int8 graph, one thread an actor.
ray-expert-float32: the same with the graph before it was quantized.
ray-tuned: batches of 3,125 rows, which are the blocks of these files, sorted inside, 32 rows at a
    time; the same int8 graph.
ray-padded-64: batches of 64 rows in the order of the corpus, each padded to its longest text. No
    page of Ray's documentation shows this job: it is what `map_batches` gives if nothing is done
    about lengths.

Workers are started and have imported their libraries before the clock starts; actors take them.
"""

import importlib
import os
import time
from collections.abc import Iterator
from typing import Any, Literal

from fastformers.jobs.benchmarks.peers.scripts.work import Clock, Work

# How a batch of `map_batches` is cut: not at all, into so many rows, or by a budget of tokens.
Cut = Literal["whole", "rows", "tokens"]
_PADDED_ROWS, _TUNED_ROWS, _SORTED_ROWS, _BUDGET_TOKENS = 64, 3125, 32, 2048


class GuideClassifier:
    """The class of Ray's guide."""

    def __init__(self, work: Work) -> None:
        from transformers import pipeline

        self._classify = pipeline("text-classification", model=work.model, device="cpu")
        self._options = {"truncation": True, "max_length": work.max_length}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found = self._classify(list(batch["text"]), **self._options)
        return {"id": batch["id"], "label": [prediction["label"] for prediction in found]}


class Predictor:
    """Tokenizer and graph in ONNX Runtime, one thread."""

    def __init__(self, work: Work, graph: str, cut: Cut) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        import numpy as np
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self._types = {
            entry.name: np.int32 if "int32" in entry.type else np.int64
            for entry in self._session.get_inputs()
        }
        self._tokenizer = Tokenizer.from_file(work.tokenizer)
        self._tokenizer.enable_truncation(work.max_length)
        self._tokenizer.no_padding()
        self._labels = np.array(work.labels, object)
        self._cut = cut

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"id": batch["id"], "label": self._labels[self.logits(batch).argmax(axis=1)]}

    def logits(self, batch: dict[str, Any]) -> Any:
        """Logits (B, C) of a batch of `map_batches`, in its order."""
        import numpy as np

        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(batch["text"]))]
        if self._cut == "whole":
            return self.run(ids)
        order = np.argsort([len(row) for row in ids], kind="stable")
        sizes = self._sizes([len(ids[row]) for row in order])
        ends = np.cumsum(list(sizes))
        parts = [
            self.run([ids[row] for row in rows]) for rows in np.split(order, ends[:-1]) if len(rows)
        ]
        return np.concatenate(parts)[np.argsort(order)]

    def _sizes(self, lengths: list[int]) -> Iterator[int]:
        """Rows of each batch, of rows in ascending order of length."""
        start = 0
        while start < len(lengths):
            size = min(_SORTED_ROWS, len(lengths) - start)
            if self._cut == "tokens":
                size = 1
                while start + size < len(lengths):
                    if (size + 1) * lengths[start + size] > _BUDGET_TOKENS:
                        break
                    size += 1
            yield size
            start += size

    def run(self, ids: list[list[int]]) -> Any:
        """Logits of rows that are padded to their longest."""
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


def run_guide(work: Work) -> dict[str, Any]:
    """Ray's guide."""
    setting = f"its guide's class, default batch size, {work.num_workers} actors"
    return _run(
        work,
        GuideClassifier,
        (work,),
        modules=("pyarrow.parquet", "torch", "transformers"),
        batch_size=None,
        setting=setting,
        packages=("ray", "transformers", "torch"),
    )


def run_graph(
    work: Work, *, graph: str, cut: Cut, batch_size: int | None, setting: str
) -> dict[str, Any]:
    """A graph in ONNX Runtime.

    Args:
        work: What is to be done.
        graph: Path of the graph.
        cut: How a batch of `map_batches` is cut.
        batch_size: Its rows; None for Ray Data's default.
        setting: The rows and the graph, for people.
    """
    return _run(
        work,
        Predictor,
        (work, graph, cut),
        modules=("pyarrow.parquet", "numpy", "onnxruntime", "tokenizers"),
        batch_size=batch_size,
        setting=f"map_batches of {setting}, {work.num_workers} actors of one thread",
        packages=("ray", "onnxruntime", "tokenizers"),
    )


def run_tuned(work: Work) -> dict[str, Any]:
    """Sorted inside blocks of the files' size."""
    setting = f"{_TUNED_ROWS} rows sorted inside, {_SORTED_ROWS} at a time, int8"
    return run_graph(
        work, graph=work.stock_graph, cut="rows", batch_size=_TUNED_ROWS, setting=setting
    )


def run_expert(work: Work) -> dict[str, Any]:
    """Ray Data's defaults, sorted inside."""
    setting = f"the default size sorted inside, {_BUDGET_TOKENS} tokens at a time, int8"
    return run_graph(work, graph=work.stock_graph, cut="tokens", batch_size=None, setting=setting)


def run_expert_float32(work: Work) -> dict[str, Any]:
    """The same in float32."""
    setting = f"the default size sorted inside, {_BUDGET_TOKENS} tokens at a time, float32"
    return run_graph(work, graph=work.float_graph, cut="tokens", batch_size=None, setting=setting)


def run_padded(work: Work) -> dict[str, Any]:
    """Batches in the order of the corpus."""
    setting = f"{_PADDED_ROWS} rows in corpus order, padded to the longest, int8"
    return run_graph(
        work, graph=work.stock_graph, cut="whole", batch_size=_PADDED_ROWS, setting=setting
    )


def _run(
    work: Work,
    actor: type,
    arguments: tuple[Any, ...],
    *,
    modules: tuple[str, ...],
    batch_size: int | None,
    setting: str,
    packages: tuple[str, ...],
) -> dict[str, Any]:
    import ray
    import ray.data

    num_cpus = work.num_workers + 1  # one for what reads and writes
    ray.init(
        num_cpus=num_cpus,
        include_dashboard=False,
        logging_level="error",
        log_to_driver=False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    begin = ray.remote(num_cpus=1)(_begin)
    ray.get([begin.remote(modules) for _ in range(num_cpus)])
    clock = Clock(work)
    size = {} if batch_size is None else {"batch_size": batch_size}
    (
        ray.data.read_parquet(list(work.files))
        .map_batches(
            actor,
            fn_constructor_args=arguments,
            compute=ray.data.ActorPoolStrategy(size=work.num_workers),
            num_cpus=1,
            **size,
        )
        .write_parquet(work.output)
    )
    clock.stop()
    ray.shutdown()
    return clock.answer(setting, packages)


def _begin(modules: tuple[str, ...]) -> None:
    """Import modules in a worker, and keep it long enough for each CPU to get its own.

    Ray gives actors the workers that are idle before it starts others.
    """
    for module in modules:
        importlib.import_module(module)
    time.sleep(1)
