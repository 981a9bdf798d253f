"""Guess from a model that keeps all tokens which of them matter to it, before it is trained.

    student + rows -> [token_significance] -> weights -> keep_tokens -> distill, which improves them

A layer that drops tokens learns a weight for each value of a state. It begins with those that fit
the attention which tokens receive from all others (PoWER-BERT, Goyal et al. 2020,
arXiv:2001.08950) best: a ridge regression of its logarithm, in each row less its mean. Four fifths
to nine tenths of its variance is linear in the states. This module knows nothing of shares.

Shape suffixes: B rows of one length, T tokens, H heads, X values of a head, W heads x head width, D
hidden width, M tokens of a batch but the first of each row, L layers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.architectures.architecture import LayerParts
from fastformers.models.forward import predict_logits
from fastformers.models.layers import layer_parts
from fastformers.models.variants.reduced_layers import SIGNIFICANCE_SPREAD, by_head

_RIDGE = 0.01  # of the mean variance of a state's values
_LEAST_ATTENTION = 1e-6
_NO_SPREAD = 1e-12


def fit_significance(model: PreTrainedModel, rows: TokenizedRows) -> Tensor:
    """Weights (L, D) for all layers of a model that drops no tokens; it is not changed.

    They are as long as training begins with; which tokens stay does not depend on it.

    Args:
        model: Model; of one that pools its tokens the pooled ones are looked at.
        rows: Training rows.
    """
    parts = layer_parts(model)
    sums = [_Sums(model.config.hidden_size) for _ in parts]
    with _listening(parts, sums):
        predict_logits(model, rows)
    weights_LD = torch.stack([one.solve() for one in sums])
    spread_L1 = weights_LD.square().mean(dim=1, keepdim=True).sqrt()
    return weights_LD * (SIGNIFICANCE_SPREAD / spread_L1.clamp(min=_NO_SPREAD))


class _Sums:
    """Sums over tokens that a regression of one layer needs, of float64."""

    def __init__(self, width: int) -> None:
        self.products_DD = torch.zeros(width, width, dtype=torch.float64)
        self.products_D = torch.zeros(width, dtype=torch.float64)
        self.total_D = torch.zeros(width, dtype=torch.float64)
        self.count = 0
        self.states_BTD = self.query_BTW = torch.zeros(0)

    def add(self, key_BTW: Tensor, head_width: int) -> None:
        """Add the tokens of a batch, whose states and queries have been seen."""
        query_BHTX, key_BHTX = (by_head(side, head_width) for side in (self.query_BTW, key_BTW))
        scores_BHTT = query_BHTX @ key_BHTX.transpose(2, 3) / head_width**0.5
        received_BT = scores_BHTT.softmax(dim=3).sum(dim=(1, 2))
        logs_BM = received_BT[:, 1:].clamp(min=_LEAST_ATTENTION).log()
        target_M = (logs_BM - logs_BM.mean(dim=1, keepdim=True)).flatten()
        states_MD = self.states_BTD[:, 1:].flatten(0, 1)
        self.products_DD += (states_MD.T @ states_MD).double().cpu()
        self.products_D += (states_MD.T @ target_M).double().cpu()
        self.total_D += states_MD.sum(dim=0).double().cpu()
        self.count += len(states_MD)

    def solve(self) -> Tensor:
        """Weights (D,) of the ridge regression; zeros where no row had a second token."""
        if not self.count:
            return torch.zeros(len(self.total_D))
        mean_D = self.total_D / self.count
        # The targets sum to 0, so means of the states have no say in the other products.
        covariance_DD = self.products_DD / self.count - torch.outer(mean_D, mean_D)
        ridge = _RIDGE * float(covariance_DD.diagonal().mean()) + _NO_SPREAD
        covariance_DD += ridge * torch.eye(len(mean_D), dtype=torch.float64)
        weights_D: Tensor = torch.linalg.solve(covariance_DD, self.products_D / self.count)
        return weights_D.float()


@contextmanager
def _listening(parts: list[LayerParts], sums: list[_Sums]) -> Iterator[None]:
    """Add to the sums of each layer whatever runs through it in the block."""

    def see_query(one: _Sums, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        one.states_BTD, one.query_BTW = inputs[0], output

    def see_key(
        one: _Sums, width: int, module: nn.Module, inputs: tuple[Any, ...], output: Tensor
    ) -> None:
        one.add(output, width)

    handles = []
    for layer, one in zip(parts, sums, strict=True):
        handles.append(layer.query.register_forward_hook(partial(see_query, one)))
        handles.append(layer.key.register_forward_hook(partial(see_key, one, layer.head_width)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
