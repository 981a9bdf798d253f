"""Compute a teacher's outputs on the training rows once, and keep them on disk.

    teacher + rows -> [teacher_outputs] -> distill

Distillation reads every row several times, but the teacher has to read it only once. Logits are
small. Hidden states and attention are not (a row of 128 tokens of a 384-wide layer is 98 kB in
float16), so they are stored only for the layers that a student is matched with, in files that are
mapped into memory. This module knows nothing of students or losses.

Shape suffixes: N rows, C classes, B rows of a batch, T tokens of each, K matched layers, D hidden
width, H heads.
"""

import copy
import json
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
from fastformers.inference.batching import in_row_order, plan_batches
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.forward import OnProgress, mixed_precision, model_inputs, on_fastest_device

_BATCH_TOKENS = 4096
_DONE = "done.json"


@dataclass(frozen=True, kw_only=True)
class LayerOutputs:
    """One array per row, whose shape depends on its length, flat in a mapped file.

    Attributes:
        values: Values of all rows, float16, flat.
        offsets: Start of each row, and end of the last, (N + 1,).
    """

    values: NDArray[np.float16]
    offsets: NDArray[np.int64]

    def row(self, row: int) -> NDArray[np.float16]:
        """The values of one row, flat."""
        return self.values[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True, kw_only=True)
class TeacherOutputs:
    """A teacher's outputs on N rows.

    Attributes:
        logits_NC: Logits of each row.
        hidden: Hidden states of each row, (T, D), for each matched layer; empty if not wanted.
        attention: Attention of each row, (T, T), for each matched layer, as the mean over heads,
            because a pruned student's heads have no counterparts; empty if not wanted.
    """

    logits_NC: NDArray[np.float32]
    hidden: tuple[LayerOutputs, ...] = ()
    attention: tuple[LayerOutputs, ...] = ()


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
    directory.mkdir(parents=True, exist_ok=True)
    done = directory / _DONE
    kept = json.loads(done.read_text()) if done.is_file() else {kind: [] for kind in wanted}
    missing = {kind: sorted({*wanted[kind]} - {*kept[kind]}) for kind in wanted}
    if not done.is_file() or any(missing.values()):
        _write(teacher, rows, directory, missing, on_progress)
        with whole_file(done) as unfinished:
            layers = {kind: sorted(kept[kind] + missing[kind]) for kind in wanted}
            unfinished.write_text(json.dumps(layers))
    return _read(directory, rows, wanted)


def _row_offsets(sizes_N: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes_N)])


def _sizes(rows: TokenizedRows, kind: str, width: int) -> NDArray[np.int64]:
    lengths_N = rows.lengths_N
    return lengths_N * width if kind == "hidden" else lengths_N * lengths_N


def _check_room(directory: Path, num_bytes: int) -> None:
    """Raise if the disk has no room: on a full disk a write to a mapped file ends the process."""
    free = shutil.disk_usage(directory).free
    if num_bytes > free:
        raise InputError(
            f"{directory}: hidden states or attention of the teacher take {num_bytes / 1e9:,.1f} "
            f"GB and {free / 1e9:,.1f} GB are free; free space, put --work on another disk, give "
            "fewer --transfer-rows, or --hidden-weight 0 and --attention-weight 0"
        )


def _read(directory: Path, rows: TokenizedRows, wanted: dict[str, list[int]]) -> TeacherOutputs:
    outputs: dict[str, tuple[LayerOutputs, ...]] = {}
    for kind, layers in wanted.items():
        files = [np.load(directory / f"{kind}-{layer}.npy", mmap_mode="r") for layer in layers]
        width = len(files[0]) // int(rows.lengths_N.sum()) if files else 0
        offsets = _row_offsets(_sizes(rows, kind, width))
        outputs[kind] = tuple(LayerOutputs(values=file, offsets=offsets) for file in files)
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
    width = teacher.config.hidden_size
    offsets = {kind: _row_offsets(_sizes(rows, kind, width)) for kind in wanted}
    _check_room(directory, sum(2 * int(offsets[kind][-1]) * len(wanted[kind]) for kind in wanted))
    for kind, layers in wanted.items():
        for layer in layers:
            files[kind, layer] = np.lib.format.open_memmap(
                directory / f"{kind}-{layer}.npy", "w+", np.float16, (int(offsets[kind][-1]),)
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
            out = teacher(
                **model_inputs(teacher, rows, rows_B),
                output_hidden_states=bool(wanted["hidden"]),
                output_attentions=bool(wanted["attention"]),
            )
            outputs.append(out.logits.float().cpu().numpy())
            for (kind, layer), file in files.items():
                values_B = (
                    out.hidden_states[layer]
                    if kind == "hidden"
                    else out.attentions[layer].mean(dim=1)
                )
                for row, value in zip(rows_B, values_B.half().cpu().numpy(), strict=True):
                    file[offsets[kind][row] : offsets[kind][row + 1]] = value.ravel()
            num_done += len(rows_B)
            on_progress("teacher", num_done, len(rows))
    for file in files.values():
        file.flush()  # type: ignore[attr-defined]
    # As a whole, because the marker of an earlier call may already say that the file is there.
    with whole_file(directory / "logits.npy") as unfinished:
        np.save(unfinished, in_row_order(outputs, batches))
