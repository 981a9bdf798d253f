"""Run a bundle as a whole and the model that it was made from out of the box, on one clock.

    teacher, bundle + labeled texts -> [whole_system] -> SystemRow

The clock of both runs from texts to logits: tokenization is inside it. Out of the box is PyTorch in
float32 on all cores, the texts in the order of the file, batch by batch padded to the longest of
each, the model loaded before the clock starts. The bundle's sessions are made inside it, one for
each core. Both run in turns. This module knows nothing of how bundles are made.

Shape suffixes: N texts, B texts of a batch, S batches that are timed, C outputs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fastformers.ablation.measure import Timing
from fastformers.ablation.scaling import scale_by_tokens, spread_sample
from fastformers.ablation.steps import GraphModel, instances_step
from fastformers.ablation.summary import Conditions, TextLengths
from fastformers.ablation.system import Side, SystemRow, SystemRun
from fastformers.ablation.texts import LabeledTexts, TextsConfig, TimedRows
from fastformers.benchmark.energy import EnergyMeter
from fastformers.data.examples import Examples
from fastformers.data.held_out import hold_out
from fastformers.errors import InputError
from fastformers.formatting import format_count
from fastformers.inference.bundle import Bundle, open_bundle
from fastformers.inference.description.label_names import TEACHER_LABELS
from fastformers.inference.manifest import TOKENIZER_FILE
from fastformers.inference.tokenizer import TokenizedRows, Tokenizer
from fastformers.models.forward import OnProgress, predict_logits, takes_token_types
from fastformers.models.loading import (
    label_names,
    load_model,
    open_tokenizer,
    serialize_tokenizer,
    task_of,
)

BATCH_ROWS = 32


@dataclass(frozen=True, kw_only=True)
class Systems:
    """Both sides, loaded.

    Attributes:
        model: The model out of the box, in eval mode.
        tokenizer: Its tokenizer.
        bundle: The bundle.
        examples: N labeled texts.
        eval_path: Their file, for messages.
        cpus_of_instance: Logical CPUs of each one-threaded instance, one instance for each core.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    bundle: Bundle
    examples: Examples
    eval_path: Path
    cpus_of_instance: Sequence[tuple[int, ...]]

    def encode(self, tokenizer_json: str) -> TokenizedRows:
        """The texts as token ids, as long as the bundle reads them."""
        tokenizer = Tokenizer(tokenizer_json, max_length=self.bundle.max_length)
        return tokenizer.encode(self.examples.texts, self.examples.text_pairs)


def open_systems(
    texts: LabeledTexts,
    *,
    teacher_path: Path,
    bundle_path: Path,
    cpus_of_instance: Sequence[tuple[int, ...]],
) -> Systems:
    """Load both sides, and check that they do the same work.

    Raises:
        InputError: They have other tasks, labels, or numbers of texts in a row.
        BundleError: The bundle is missing or damaged.
    """
    examples, eval_path = texts
    bundle, model = open_bundle(bundle_path), load_model(teacher_path)
    if task_of(model) != bundle.task:
        raise InputError(
            f"--bundle {bundle_path}: its task is {bundle.task}, and that of --teacher "
            f"{teacher_path} is {task_of(model)}; give the model that it was made from"
        )
    if not bundle.task.has_targets:
        raise InputError(
            f"--bundle {bundle_path}: table 4 has the quality of labels, not of {bundle.task}"
        )
    labels = tuple(bundle.provenance.get(TEACHER_LABELS, bundle.labels))
    if labels != label_names(model):
        raise InputError(
            f"--bundle {bundle_path}: its labels are not those of --teacher {teacher_path}; give "
            "the model that it was made from"
        )
    if bundle.text_pairs != (examples.text_pairs is not None):
        reads = "pairs of texts" if bundle.text_pairs else "single texts"
        raise InputError(f"--bundle {bundle_path}: reads {reads}, and {eval_path} has others")
    return Systems(
        model=model,
        tokenizer=open_tokenizer(teacher_path),
        bundle=bundle,
        examples=examples,
        eval_path=eval_path,
        cpus_of_instance=cpus_of_instance,
    )


def measure_systems(
    systems: Systems,
    config: TextsConfig,
    conditions: Conditions,
    *,
    task: str,
    teacher: str,
    on_progress: OnProgress = lambda what, done, total: None,
) -> SystemRow:
    """Run both sides in turns, and judge their outputs.

    Args:
        systems: Both sides.
        config: How many texts the slow side times (`baseline_rows`).
        conditions: Machine, versions and date; `repeats` turns are made.
        task: Name of the task, for the row.
        teacher: Name of the model, for the row.
        on_progress: Called with the name of the work, how much is done, and how much there is.

    Raises:
        InputError: The labels do not match the models.
    """
    held_out = hold_out(
        systems.examples, systems.bundle.task, label_names(systems.model), systems.eval_path
    )
    rows = systems.encode(serialize_tokenizer(systems.tokenizer))
    teacher_logits_NC = predict_logits(systems.model, rows, on_progress)
    batches = _Batches.of(rows, config.baseline_rows)
    meter = EnergyMeter()
    theirs: list[SystemRun] = []
    ours: list[SystemRun] = []
    logits_NC = None
    for turn in range(conditions.repeats):
        on_progress("turns", turn, conditions.repeats)
        theirs.append(_run_model(systems, batches, meter))
        run, logits_NC = _run_bundle(systems, meter)
        ours.append(run)
    assert logits_NC is not None, "no turn"
    threads = format_count(len(systems.cpus_of_instance), "thread")
    instances = format_count(len(systems.cpus_of_instance), "instance")
    return SystemRow(
        task=task,
        metric=held_out.metric,
        agreement=held_out.measure_agreement(logits_NC, teacher_logits_NC),
        out_of_the_box=Side(
            name=teacher,
            how=f"PyTorch float32, {BATCH_ROWS} texts padded to the longest, {threads}",
            quality=held_out.measure(teacher_logits_NC, teacher_logits_NC),
            timed_rows=sum(map(len, batches.timed)),
            runs=tuple(theirs),
        ),
        bundle=Side(
            name=systems.bundle.path.name,
            how=f"{systems.bundle.precision}, {instances} of one thread, sessions included",
            quality=held_out.measure(logits_NC, teacher_logits_NC),
            timed_rows=len(rows),
            runs=tuple(ours),
        ),
        energy_source=meter.source,
        texts=TextLengths.of(rows.lengths_N),
        conditions=conditions,
    )


@dataclass(frozen=True, kw_only=True)
class _Batches:
    """The texts batch by batch, in the order of the file, and which of the batches are timed.

    Attributes:
        rows: Row numbers (B,) of each batch.
        padded: Tokens of each, padded to its longest text.
        timed_S: Numbers of those that are timed, see `spread_sample`.
    """

    rows: Sequence[NDArray[np.intp]]
    padded: NDArray[np.int64]
    timed_S: NDArray[np.intp]

    @classmethod
    def of(cls, texts: TokenizedRows, timed_rows: int) -> "_Batches":
        """All batches of the texts; about so many rows are timed."""
        starts = range(0, len(texts), BATCH_ROWS)
        rows = [np.arange(at, min(at + BATCH_ROWS, len(texts))) for at in starts]
        padded = np.array([len(rows_B) * texts.lengths_N[rows_B].max() for rows_B in rows])
        return cls(
            rows=rows, padded=padded, timed_S=spread_sample(padded, -(-timed_rows // BATCH_ROWS))
        )

    @property
    def timed(self) -> list[NDArray[np.intp]]:
        """Row numbers of each batch that is timed."""
        return [self.rows[batch] for batch in self.timed_S.tolist()]


def _run_model(systems: Systems, batches: _Batches, meter: EnergyMeter) -> SystemRun:
    """Time some batches of the model out of the box, from texts to logits."""
    score = _out_of_the_box(systems)
    score(batches.timed[-1])  # warm up

    def work() -> NDArray[np.float64]:
        times_S = np.empty(len(batches.timed_S))
        for place, rows_B in enumerate(batches.timed):
            start_s = time.perf_counter()
            score(rows_B)
            times_S[place] = time.perf_counter() - start_s
        return times_S

    threads_before = torch.get_num_threads()
    torch.set_num_threads(len(systems.cpus_of_instance))
    try:
        times_S, energy = meter.measure(work)
    finally:
        torch.set_num_threads(threads_before)
    scaled = scale_by_tokens(
        times_S,
        batches.padded[batches.timed_S],
        num_rows=len(batches.rows),
        num_tokens=int(batches.padded.sum()),
    )
    times = scaled.seconds / float(times_S.sum())
    return SystemRun(
        seconds=scaled.seconds,
        standard_error_s=scaled.standard_error_s,
        core_seconds=times * energy.core_seconds,
        joules=None if energy.joules is None else times * energy.joules,
    )


def _out_of_the_box(systems: Systems) -> Callable[[NDArray[np.intp]], torch.Tensor]:
    """A function that scores the texts of a batch, as transformers' own documentation does."""
    model, is_choice = systems.model, systems.bundle.task.is_choice
    has_types = takes_token_types(model)

    def score(rows_B: NDArray[np.intp]) -> torch.Tensor:
        batch = systems.examples.take(rows_B)
        inputs = systems.tokenizer(
            list(batch.texts),
            None if batch.text_pairs is None else list(batch.text_pairs),
            padding=True,
            truncation=True,
            max_length=systems.bundle.max_length,
            return_token_type_ids=has_types,
            return_tensors="pt",
        )
        if is_choice:  # each row is a question of one choice
            inputs = {name: values[:, None] for name, values in inputs.items()}
        with torch.inference_mode():
            logits: torch.Tensor = model(**inputs).logits
        return logits

    return score


def _run_bundle(systems: Systems, meter: EnergyMeter) -> tuple[SystemRun, NDArray[np.float32]]:
    """Time the bundle on all texts, from texts to logits."""
    bundle = systems.bundle
    tokenizer_json = (bundle.path / TOKENIZER_FILE).read_text(encoding="utf-8")

    def work() -> tuple[float, Timing]:
        start_s = time.perf_counter()
        graph = GraphModel(
            name=bundle.path.name,
            path=bundle.model_path,
            texts=TimedRows(rows=systems.encode(tokenizer_json), tokenization_s=None),
            max_batch_tokens=bundle.cost_profile.max_batch_tokens,
        )
        step = instances_step(graph.name, graph, cpus_of_instance=systems.cpus_of_instance)
        timing = step.run(lambda num_tokens: None)
        return time.perf_counter() - start_s, timing

    (seconds, timing), energy = meter.measure(work)
    assert timing.logits_NC is not None, "a graph gives logits"
    run = SystemRun(
        seconds=seconds,
        standard_error_s=None,
        core_seconds=energy.core_seconds,
        joules=energy.joules,
    )
    return run, timing.logits_NC
