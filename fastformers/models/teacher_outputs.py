"""Compute a teacher's outputs on the training rows once, and keep them on disk.

    teacher + rows -> [teacher_outputs] -> distill

Distillation reads every row several times, but the teacher has to read it only once. Logits are
small. Hidden states and attention are not (a row of 128 tokens of a 384-wide layer is 98 kB in
float16), so they are stored only for the layers that a student is matched with, in files that are
mapped into memory. A teacher that pools its tokens has fewer states than a row has tokens. This
module knows nothing of students or losses.

Shape suffixes: N rows, C classes, B rows of a batch, T tokens of each, K matched layers, D hidden
width, H heads.
"""

import copy
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fastformers.atomic_file import whole_file
from fastformers.errors import InputError
from fastformers.files.file_lock import in_turn
from fastformers.inference.batching import in_row_order, plan_batches
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.forward import OnProgress, mixed_precision, model_inputs, on_fastest_device
from fastformers.models.variants.reduced_layers import run_with_states
from fastformers.models.variants.token_reduction import reduction_of

_BATCH_TOKENS = 4096
_DONE = "done.json"


@dataclass(frozen=True, kw_only=True)
class LayerOutputs:
    """One array per row, with a line for each token, flat in a mapped file.

    Attributes:
        values: Values of all rows, float16, flat.
        offsets: Start of each row, and end of the last, (N + 1,).
        width: Values of a token; None for attention, which has one for each token of the row.
    """

    values: NDArray[np.float16]
    offsets: NDArray[np.int64]
    width: int | None

    def row(self, row: int) -> NDArray[np.float16]:
        """The values of one row, (T, D) or (T, T)."""
        start, stop = (int(offset) for offset in self.offsets[row : row + 2])
        return self.values[start:stop].reshape(-1, self.width or math.isqrt(stop - start))


@dataclass(frozen=True, kw_only=True)
class TeacherOutputs:
    """A teacher's outputs on N rows.

    Attributes:
        logits_NC: Logits of each row.
        hidden: Hidden states of each row, (T, D), for each matched layer, of the tokens that the
            teacher has there; empty if not wanted.
        attention: Attention of each row, (T, T), for each matched layer, as the mean over heads,
            because a pruned student's heads have no counterparts; empty if not wanted.
    """

    logits_NC: NDArray[np.float32]
    hidden: tuple[LayerOutputs, ...] = ()
    attention: tuple[LayerOutputs, ...] = ()


def has_outputs(directory: Path) -> bool:
    """Whether a teacher's outputs are in a directory; further layers may still be missing."""
    return (directory / _DONE).is_file()


def compute_teacher_outputs(
    teacher: PreTrainedModel,
    rows: TokenizedRows,
    directory: Path,
    *,
    hidden_layers: Sequence[int],
    attention_layers: Sequence[int],
    on_progress: OnProgress,
) -> TeacherOutputs:
    """Run the teacher on the rows for those outputs that are not yet in `directory`.

    A process that asks for them while another one computes them waits for it.

    Args:
        teacher: Model in eval mode.
        rows: N training rows.
        directory: Directory of the outputs; it must belong to this teacher and these rows.
        hidden_layers: Hidden states to keep, 0 for the embeddings.
        attention_layers: Layers whose attention to keep, from 0.
        on_progress: Called with the name of the work, rows done and rows in all.

    Raises:
        InputError: The disk has no room for them.
    """
    wanted = {"hidden": list(hidden_layers), "attention": list(attention_layers)}
    # Whoever opens a file of states for writing empties it, also one that another process fills.
    with in_turn(directory):
        directory.mkdir(parents=True, exist_ok=True)
        _complete(teacher, rows, directory, wanted, on_progress)
    return _read(teacher, directory, rows, wanted)


def _complete(
    teacher: PreTrainedModel,
    rows: TokenizedRows,
    directory: Path,
    wanted: dict[str, list[int]],
    on_progress: OnProgress,
) -> None:
    """Compute what is not yet in the directory, and say there what is."""
    done = directory / _DONE
    kept = json.loads(done.read_text()) if done.is_file() else {kind: [] for kind in wanted}
    missing = {kind: sorted({*wanted[kind]} - {*kept[kind]}) for kind in wanted}
    if not done.is_file() or any(missing.values()):
        _write(teacher, rows, directory, missing, on_progress)
        with whole_file(done) as unfinished:
            layers = {kind: sorted(kept[kind] + missing[kind]) for kind in wanted}
            unfinished.write_text(json.dumps(layers))


def _row_offsets(sizes_N: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes_N)])


def _sizes(
    teacher: PreTrainedModel, rows: TokenizedRows, kind: str, layer: int
) -> NDArray[np.int64]:
    """Numbers that are kept of each row, (N,)."""
    if kind == "attention":
        return rows.lengths_N * rows.lengths_N
    counts_LN = reduction_of(teacher.config).count_tokens(rows.lengths_N, layer)
    sizes_N: NDArray[np.int64] = counts_LN[layer] * teacher.config.hidden_size
    return sizes_N


def _check_room(directory: Path, num_bytes: int) -> None:
    """Raise if the disk has no room: on a full disk a write to a mapped file ends the process."""
    free = shutil.disk_usage(directory).free
    if num_bytes > free:
        raise InputError(
            f"{directory}: hidden states or attention of the teacher take {num_bytes / 1e9:,.1f} "
            f"GB and {free / 1e9:,.1f} GB are free; free space, put --work on another disk, give "
            "fewer --transfer-rows, or --hidden-weight 0 and --attention-weight 0"
        )


def _read(
    teacher: PreTrainedModel, directory: Path, rows: TokenizedRows, wanted: dict[str, list[int]]
) -> TeacherOutputs:
    outputs: dict[str, tuple[LayerOutputs, ...]] = {}
    for kind, layers in wanted.items():
        outputs[kind] = tuple(
            LayerOutputs(
                values=np.load(directory / f"{kind}-{layer}.npy", mmap_mode="r"),
                offsets=_row_offsets(_sizes(teacher, rows, kind, layer)),
                width=teacher.config.hidden_size if kind == "hidden" else None,
            )
            for layer in layers
        )
    return TeacherOutputs(
        logits_NC=np.load(directory / "logits.npy"),
        hidden=outputs["hidden"],
        attention=outputs["attention"],
    )


def _write(
    teacher: PreTrainedModel,
    rows: TokenizedRows,
    directory: Path,
    wanted: dict[str, list[int]],
    on_progress: OnProgress,
) -> None:
    files: dict[tuple[str, int], NDArray[np.float16]] = {}
    offsets = {
        (kind, layer): _row_offsets(_sizes(teacher, rows, kind, layer))
        for kind, layers in wanted.items()
        for layer in layers
    }
    _check_room(directory, sum(2 * int(starts[-1]) for starts in offsets.values()))
    for (kind, layer), starts in offsets.items():
        files[kind, layer] = np.lib.format.open_memmap(
            directory / f"{kind}-{layer}.npy", "w+", np.float16, (int(starts[-1]),)
        )
    if wanted["attention"]:  # the fused kernels do not give it
        teacher = copy.deepcopy(teacher)
        teacher.set_attn_implementation("eager")
    batches = plan_batches(rows.lengths_N, max_batch_tokens=_BATCH_TOKENS)
    outputs: list[NDArray[np.float32]] = []
    num_done = 0
    # What bf16 rounds off teaches nothing, and it takes 0.54 of the time (Zen 5, MiniLM). The
    # exported float graph takes twice as long as this; the int8 graph 0.84 of it, for answers whose
    # probabilities are 0.02 off on average, and without hidden states (one core, 2026-11-26).
    with torch.inference_mode(), on_fastest_device(teacher), mixed_precision():
        for rows_B in batches:
            out, states = run_with_states(
                teacher,
                **model_inputs(teacher, rows, rows_B),
                output_attentions=bool(wanted["attention"]),
            )
            outputs.append(out.logits.float().cpu().numpy())
            for (kind, layer), file in files.items():
                values_B = (
                    states[layer].values_BKD
                    if kind == "hidden"
                    else out.attentions[layer].mean(dim=1)
                )
                starts = offsets[kind, layer]
                for row, value in zip(rows_B, values_B.half().cpu().numpy(), strict=True):
                    file[starts[row] : starts[row + 1]] = value.ravel()
            num_done += len(rows_B)
            on_progress("teacher", num_done, len(rows))
    for file in files.values():
        file.flush()  # type: ignore[attr-defined]
    # As a whole, because the marker of an earlier call may already say that the file is there.
    with whole_file(directory / "logits.npy") as unfinished:
        np.save(unfinished, in_row_order(outputs, batches))
