"""Measure the importance of heads and neurons, and remove those that a plan does not keep.

    student + training rows -> [prune: importance] -> pruning_plan -> [prune: model] -> distill

Importance is first-order: every head and every feed-forward neuron is multiplied by a gate of 1,
and its importance is the absolute gradient of a row's loss at that gate, mean over rows. For a
neuron that is |sum(gradient x weight)| over its outgoing weights. Each row has gates of its own, so
a value does not depend on which rows share a batch, and nothing accumulates in the model. Measure
it on training rows: a model that was pruned by the rows it is evaluated on looks better than it is.
This module knows nothing of shares, budgets or rounds.

Shape suffixes: N rows, B rows of a batch, T tokens, C classes, H heads, W heads x head width,
D hidden width, X heads, neurons or hidden dimensions.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from fastformers.arrays import Floats
from fastformers.compression.pruning.pruning_plan import Importance, PruningPlan
from fastformers.errors import InputError, StageError
from fastformers.inference.batching import plan_batches
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.architectures import shrinkable_architecture_of
from fastformers.models.forward import model_inputs
from fastformers.models.layers import (
    LayerShape,
    keep_heads,
    keep_neurons,
    layer_parts,
    layer_shape,
    unpruned_shape,
)
from fastformers.models.loading import task_of
from fastformers.models.losses import confidence, hard_loss
from fastformers.models.sentence_encoder import SentenceEncoder

_PreHook = Callable[[nn.Module, tuple[torch.Tensor, ...]], torch.Tensor]
_BATCH_TOKENS = 2048  # fewer than for scoring: activations are kept for the gradient


def measure_importance(
    model: PreTrainedModel,
    rows: TokenizedRows,
    targets_N: NDArray[np.generic] | None = None,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Importance:
    """Estimate how much the loss would move if a head, neuron or hidden dimension were removed.

    With targets the loss is that of the task (`losses.hard_loss`). Without, it is half the squared
    norm of the output (`losses.confidence`). Neither a teacher's outputs nor the model's own would
    do as targets: a model that is, or has learned to be, its own teacher has no gradient left, and
    the likelihood of a prediction that it is sure of has hardly any.

    Args:
        model: Model to measure; it is not changed. Dropout is off in either mode.
        rows: N training rows; a few hundred rank well (ranked on 160 rows of BoolQ, MiniLM without
            a third of its heads and half of its FFN lost 1.6 points before any retraining, and 7.6
            points where they were chosen at random).
        targets_N: Target of each row, as `targets.encode_targets` makes them.
        on_progress: Called with the name of the work, rows done and rows in all.

    Raises:
        InputError: The architecture cannot be pruned, or there are no rows.
        StageError: A gradient is not finite.

    Source:
        Heads: Michel, Levy and Neubig 2019, arXiv:1905.10650. Neurons: Molchanov et al. 2016,
        arXiv:1611.06440.
    """
    if len(rows) == 0:
        raise InputError("no training rows to measure importance on")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    if isinstance(model, SentenceEncoder):
        model.normalize = False  # a vector that is always of length 1 has no gradient of its length
    task = task_of(model)
    gates = _Gates(model)
    for rows_B in plan_batches(rows.lengths_N, max_batch_tokens=_BATCH_TOKENS):
        gates.open(len(rows_B))
        with torch.enable_grad():
            outputs_BC = model(**model_inputs(model, rows, rows_B)).logits
            if targets_N is None:
                loss_B = confidence(outputs_BC, task)
            else:
                targets_B = torch.from_numpy(targets_N[rows_B]).to(outputs_BC.device)
                loss_B = hard_loss(outputs_BC, targets_B, task)
            # The sum, so that the gradient at a row's gate is that of the row's own loss.
            gates.collect(loss_B.sum())
        on_progress("importance", gates.num_rows, len(rows))
    heads, neurons, hidden_D = gates.means()
    unpruned = unpruned_shape(model.config)
    return Importance(
        heads=heads,
        neurons=neurons,
        hidden_D=hidden_D,
        num_heads=unpruned.num_heads,
        ffn_width=unpruned.ffn_width,
    )


def prune_model(model: PreTrainedModel, plan: PruningPlan) -> PreTrainedModel:
    """A copy of the model with only the heads and neurons that the plan keeps; head widths stay.

    `checkpoint.load_weights` reads the shapes from `config.pruned_layers`; the other settings stay,
    so that a later round knows the model's shape before any pruning.

    Raises:
        InputError: The architecture cannot be pruned, or the plan is for another model.
    """
    model = copy.deepcopy(model)
    layers = layer_parts(model)
    if len(plan.heads) != len(layers):
        raise InputError(f"a plan for {len(plan.heads)} layers; the model has {len(layers)}")
    for layer, heads, neurons in zip(layers, plan.heads, plan.neurons, strict=True):
        _check_plan(layer_shape(layer), heads, neurons)
        keep_heads(layer, heads)
        keep_neurons(layer, neurons)
    model.config.pruned_layers = [asdict(shape) for shape in shapes_after(plan)]
    return model


def shapes_after(plan: PruningPlan) -> list[LayerShape]:
    """The layers' shapes after pruning."""
    return [
        LayerShape(num_heads=len(heads), ffn_width=len(neurons))
        for heads, neurons in zip(plan.heads, plan.neurons, strict=True)
    ]


def _check_plan(shape: LayerShape, heads: NDArray[np.intp], neurons: NDArray[np.intp]) -> None:
    for what, kept, limit in (
        ("heads", heads, shape.num_heads),
        ("neurons", neurons, shape.ffn_width),
    ):
        if len(kept) == 0 or kept[-1] >= limit:
            raise InputError(f"a plan for another model: a layer has {limit} {what}")


class _Gates:
    """Gates of 1 in a model, and the sums of the gradients at them.

    Each layer has one gate per head and one per neuron, where their outputs enter the next
    projection. Each hidden dimension has one, shared by all points where the residual stream is
    normalized.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.num_rows = 0
        layers = layer_parts(model)
        self._sizes = [layer.num_heads for layer in layers]
        self._sizes += [layer.up.out_features for layer in layers]
        self._sizes.append(model.config.hidden_size)
        self._sums = [torch.zeros(size, dtype=torch.float64) for size in self._sizes]
        self._gates: list[torch.Tensor] = []
        self._device = model.device
        for at, layer in enumerate(layers):
            layer.output.register_forward_pre_hook(self._gate_heads(at))
            layer.down.register_forward_pre_hook(self._gate_neurons(len(layers) + at))
        architecture = shrinkable_architecture_of(model.config)
        norms = [norm for layer in layers for norm in layer.norms]
        final_norm = architecture.final_norm(model.base_model)
        for module in (architecture.embeddings(model.base_model).last, *norms, final_norm):
            if module is not None:
                module.register_forward_hook(self._gate_hidden)

    def open(self, num_rows: int) -> None:
        """Set up the gates for a batch of `num_rows` rows."""
        self._gates = [
            torch.ones(num_rows, size, device=self._device, requires_grad=True)
            for size in self._sizes
        ]

    def collect(self, loss: torch.Tensor) -> None:
        """Add the gradients of the batch's loss."""
        for total, gradient_BX in zip(
            self._sums, torch.autograd.grad(loss, self._gates), strict=True
        ):
            if not bool(gradient_BX.isfinite().all()):
                raise StageError("importance: the loss of a row has no finite gradient")
            total += gradient_BX.abs().sum(dim=0).double().cpu()
        self.num_rows += len(self._gates[0])

    def means(self) -> tuple[tuple[Floats, ...], tuple[Floats, ...], Floats]:
        """Importance of heads and neurons layer by layer, and of hidden dimensions."""
        *layers, hidden_D = [(total / self.num_rows).float().numpy() for total in self._sums]
        middle = len(layers) // 2
        return tuple(layers[:middle]), tuple(layers[middle:]), hidden_D

    def _gate_heads(self, at: int) -> _PreHook:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
            gate_BH = self._gates[at]
            context_BTW = inputs[0]
            gate_BW = gate_BH.repeat_interleave(context_BTW.shape[2] // gate_BH.shape[1], dim=1)
            return context_BTW * gate_BW[:, None]

        return hook

    def _gate_neurons(self, at: int) -> _PreHook:
        return lambda module, inputs: inputs[0] * self._gates[at][:, None]

    def _gate_hidden(
        self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output_BTD: torch.Tensor
    ) -> torch.Tensor:
        return output_BTD * self._gates[-1][:, None]
