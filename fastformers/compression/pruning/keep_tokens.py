"""Make a model that drops tokens on its way, and measure what that does to it.

    student, token_significance -> [keep_tokens] -> token_plan -> [keep_tokens] -> distill

Which tokens go is decided anew for each row, by what their states say (`models/variants`); what is
decided here is how many. This module knows nothing of training.

Shape suffixes: N rows, C outputs.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fastformers.arrays import Floats
from fastformers.compression.pruning.token_plan import (
    LayerCost,
    Shares,
    TokenEffect,
    choose_shares,
    count_multiply_adds,
)
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.architectures import architecture_of
from fastformers.models.forward import OnProgress, predict_logits
from fastformers.models.layers import layer_parts
from fastformers.models.loading import task_of
from fastformers.models.losses import soft_loss
from fastformers.models.sentence_encoder import SentenceEncoder
from fastformers.models.variants.reduced_layers import change_reduction, set_significance
from fastformers.models.variants.token_reduction import reduction_of


def keep_tokens(model: PreTrainedModel, shares: Shares, weights_LD: Tensor) -> PreTrainedModel:
    """A copy of the model whose layers drop tokens.

    Args:
        model: Model; one that pools its tokens drops pooled ones.
        shares: Share of the tokens entering a layer that leave it, from the first layer on.
        weights_LD: What says which tokens stay, from the first layer on (`fit_significance`).

    Raises:
        InputError: The architecture cannot do it.
    """
    model = copy.deepcopy(model)
    change_reduction(model, replace(reduction_of(model.config), keep_shares=shares))
    set_significance(model, weights_LD[: len(shares)])
    return model


def count_dropping_layers(num_layers: int, *, reads_all_tokens: bool) -> int:
    """Layers that may drop tokens: the last only where the head reads more than its first token."""
    return num_layers if reads_all_tokens else num_layers - 1


def reads_all_tokens(model: PreTrainedModel) -> bool:
    """Whether the head takes the mean of all tokens, not the first one alone."""
    if isinstance(model, SentenceEncoder):
        return model.pooling == "mean"
    return architecture_of(model.config).pooling(model.config) == "mean"


def choose_shares_for(
    model: PreTrainedModel,
    rows: TokenizedRows,
    weights_LD: Tensor,
    *,
    min_agreement: float,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Shares:
    """Choose the shares of a model's layers by their effect on rows, without training.

    Args:
        model: Model that drops no tokens; it is not changed.
        rows: Training rows.
        weights_LD: As for `keep_tokens`.
        min_agreement: Agreement (0-1) with the model with all tokens that must be left.
        on_progress: Called with the name of the work, steps done, and steps at most.
    """
    reduction = reduction_of(model.config)
    num_layers = count_dropping_layers(
        model.config.num_hidden_layers, reads_all_tokens=reads_all_tokens(model)
    )
    first_layer = 0 if reduction.pool is None else reduction.pool.before_layer
    task, expected_NC = task_of(model), predict_logits(model, rows)
    costs, num_all = _layer_costs(model), model.config.num_hidden_layers
    num_done = 0

    def measure(shares: Shares) -> TokenEffect:
        nonlocal num_done
        outputs_NC = predict_logits(keep_tokens(model, shares, weights_LD), rows)
        num_done += 1
        on_progress("token shares", num_done, 2 * 10 * (num_layers - first_layer))
        return TokenEffect(
            harm=_mean_distance(outputs_NC, expected_NC, model),
            agreement=task.measure_agreement(outputs_NC, expected_NC),
        )

    def cost_of(shares: Shares) -> float:
        reduced = replace(reduction, keep_shares=shares)
        entering_LN = reduced.count_entering(rows.lengths_N, num_all)
        leaving_LN = reduced.count_tokens(rows.lengths_N, num_all)[1:]
        # Tokens attend after the choice, and are attended to before it.
        return count_multiply_adds(costs, entering_LN, leaving_LN, leaving_LN)

    return choose_shares(
        measure,
        cost_of,
        num_layers=num_layers,
        first_layer=first_layer,
        min_agreement=min_agreement,
    )


def _layer_costs(model: PreTrainedModel) -> list[LayerCost]:
    """Multiply-adds of each layer, but for what a last layer does for its first token alone."""
    *others, last = layer_parts(model)
    if reads_all_tokens(model):
        others.append(last)
    costs = [
        LayerCost(
            entering=_num_weights(parts.key, parts.value),
            attending=_num_weights(parts.query),
            pair=2 * parts.query.out_features,
            leaving=_num_weights(parts.output, parts.up, parts.down),
        )
        for parts in others
    ]
    if not reads_all_tokens(model):
        entering = _num_weights(last.key, last.value) + 2 * last.query.out_features
        costs.append(LayerCost(entering=entering, attending=0, pair=0, leaving=0))
    return costs


def _num_weights(*projections: nn.Linear) -> int:
    return sum(projection.weight.numel() for projection in projections)


def _mean_distance(outputs_NC: Floats, expected_NC: Floats, model: PreTrainedModel) -> float:
    distance_N = soft_loss(
        torch.from_numpy(outputs_NC),
        torch.from_numpy(expected_NC),
        task_of(model),
        temperature=1.0,
    )
    return float(distance_N.mean())
