"""The hidden states of a model with the tokens that they belong to, and how to pool and match them.

    model + batch -> reduced_layers -> [token_states] -> losses of distillation

A model that drops or pools tokens has hidden states of fewer tokens than its teacher. Here both are
brought to the same tokens: the teacher's are pooled as the student's are, or the other way round,
and only those of tokens that the student has left are taken. This module knows nothing of layers.

Shape suffixes: B rows of a batch, T tokens, K tokens that are left, G groups of tokens, E tokens of
a group, D hidden width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fastformers.models.variants.token_reduction import TokenPool


@dataclass(frozen=True, kw_only=True)
class TokenStates:
    """One hidden state of the tokens that are left in a batch.

    Attributes:
        values_BKD: The hidden state.
        weights_BK: 1 for tokens of a row, 0 for padding; between the two for tokens that will be
            dropped and stay while a model learns to do without them.
        positions_BK: Which tokens they are, counted after pooling; None for all in their order.
        bias_BK: What is added to the scores of a token that later layers attend to: 0, and the way
            in which a loss reaches the significance of tokens while a model is trained; else None.
        pool: How they were pooled; None where they are tokens of the text.
    """

    values_BKD: Tensor
    weights_BK: Tensor
    positions_BK: Tensor | None = None
    bias_BK: Tensor | None = None
    pool: TokenPool | None = None


def pool_states(states: TokenStates, pool: TokenPool) -> TokenStates:
    """Pool groups of neighboring tokens; the first token stays as it is.

    Args:
        states: States of all tokens; those of each row come before its padding.
        pool: How to pool them.
    """
    assert states.positions_BK is None, "tokens are pooled before any are dropped"
    first_B1D, rest = states.values_BKD[:, :1], states.values_BKD[:, 1:]
    missing = -rest.shape[1] % pool.every
    real = functional.pad(states.weights_BK[:, 1:] > 0, (0, missing))
    rest = functional.pad(rest, (0, 0, 0, missing))
    num_groups = real.shape[1] // pool.every
    rest_BGED = rest.reshape(len(rest), num_groups, pool.every, rest.shape[2])
    real_BGE = real.reshape(len(real), num_groups, pool.every)
    has_any_BG = real_BGE.any(dim=2)
    if pool.how == "mean":
        sums_BGD = (rest_BGED * real_BGE[..., None]).sum(dim=2)
        pooled_BGD = sums_BGD / real_BGE.sum(dim=2).clamp(min=1)[..., None]
    else:
        masked_BGED = rest_BGED.masked_fill(~real_BGE[..., None], -torch.inf)
        pooled_BGD = masked_BGED.amax(dim=2).masked_fill(~has_any_BG[..., None], 0.0)
    return TokenStates(
        values_BKD=torch.cat([first_B1D, pooled_BGD], dim=1),
        weights_BK=torch.cat(
            [states.weights_BK[:, :1], has_any_BG.to(states.weights_BK.dtype)], dim=1
        ),
        pool=pool,
    )


def match_states(student: TokenStates, teacher: TokenStates) -> tuple[Tensor, Tensor, Tensor]:
    """Bring hidden states of student and teacher to the same tokens.

    Args:
        student: The student's.
        teacher: The teacher's, which has dropped no tokens.

    Returns:
        Values of the student (B, K, D) and of the teacher (B, K, D), and the weight of each token
        (B, K).
    """
    assert teacher.positions_BK is None
    if student.pool is not None and teacher.pool is None:
        teacher = pool_states(teacher, student.pool)
    elif student.pool is None and teacher.pool is not None:
        student = pool_states(student, teacher.pool)
    values_BKD = teacher.values_BKD
    if student.positions_BK is not None:
        values_BKD = take_tokens(values_BKD, student.positions_BK)
    num_left = student.values_BKD.shape[1]
    return student.values_BKD, values_BKD[:, :num_left], student.weights_BK


def choose_tokens(significance_BK: Tensor, may_stay_BK: Tensor, counts_B: Tensor) -> Tensor:
    """Mark the most significant tokens of each row; the first token always stays.

    Args:
        significance_BK: How much each token matters; of equal ones the first stays.
        may_stay_BK: Tokens that are there to choose from.
        counts_B: How many of each row stay; no more than there are.

    Returns:
        Marks (B, K).
    """
    scores_BK = significance_BK.masked_fill(~may_stay_BK, -torch.inf)
    scores_BK[:, 0] = torch.inf
    order_BK = scores_BK.sort(dim=1, descending=True, stable=True).indices
    ranks_K = torch.arange(scores_BK.shape[1], device=scores_BK.device)
    marks_BK = torch.zeros_like(may_stay_BK)
    return marks_BK.scatter(1, order_BK, ranks_K < counts_B[:, None])


def places_of(marks_BK: Tensor, num_left: int) -> Tensor:
    """Places (B, num_left) of the marked tokens in their order, then of others as padding."""
    order_BK = marks_BK.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices
    return order_BK[:, :num_left]


def take_tokens(values_BTD: Tensor, places_BK: Tensor) -> Tensor:
    """Values (B, K, D) of the tokens at the given places of each row."""
    return values_BTD.gather(1, places_BK[..., None].expand(-1, -1, values_BTD.shape[2]))
