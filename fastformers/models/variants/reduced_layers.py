"""Run the layers of a model so that they drop or pool tokens on the way.

    config.keep_tokens, config.pool_tokens -> [reduced_layers] -> any forward of the model

`install_reduction` puts `ReducedLayers` in the place of the module that runs a model's layers. The
layers stay where they are, with their names and hooks, and so do weights, embeddings and heads:
whatever calls the model gets the reduced forward. Tokens are really left out, so training is
faster, too. What a layer has left of a row depends on that row alone.

Significance of a token is the product of its state, as it enters a layer, with weights that the
layer learned. What comes after the choice of the largest has no gradient by these weights. So while
a model is trained, a token's scores in later layers have a term of value 0 (`_bias_of`) whose
gradient is that of the logarithm of a gate: the sigmoid of by how much the token is above the least
significant one that stays (a straight-through estimate, Bengio et al. 2013, arXiv:1308.3432). On
reviews of 256 tokens, 60% of them kept by each of three layers, this lost 0.6 points where the
attention that tokens receive lost 1.1 (PoWER-BERT, Goyal et al. 2020, arXiv:2001.08950), and that
of the first token 4.7 (fastformers/README.md). What stays is known before the layer attends, so
dropped tokens have no query. This module knows nothing of losses or of how shares are chosen.

Shape suffixes: B rows of a batch, T tokens, K tokens that are left, H heads, Q tokens that attend,
X values of a head, W heads x head width, D hidden width, L layers that have a share.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from fastformers.models.architectures import architecture_of, check_reducible
from fastformers.models.architectures.architecture import LayerParts
from fastformers.models.variants.token_reduction import (
    TokenReduction,
    reduction_of,
    set_reduction,
)
from fastformers.models.variants.token_states import (
    TokenStates,
    choose_tokens,
    places_of,
    pool_states,
    take_tokens,
)

# A gate is half open for the least significant token that stays, and a quarter for one that is a
# third of a standard deviation of its row below it.
_TEMPERATURE = 0.3
SIGNIFICANCE = "significance_LD"
SIGNIFICANCE_SPREAD = 0.02  # of the weights that training begins with


class ReducedLayers(nn.Module):
    """The layers of a model, run one after the other on fewer and fewer tokens.

    Attributes:
        layer: The layers.
        significance_LD: What the state of a token is multiplied by, for each layer with a share;
            the length of such a vector has no say. None where no layer has one.
        dropped_weight: Weight (0-1) that later layers give to a token which is to be dropped. Above
            0 such tokens stay: training begins at 1, where nothing is dropped yet, and goes to 0.
        left_BK: Weights of the tokens that the last forward ended with.
    """

    def __init__(self, layers: nn.ModuleList, config: PretrainedConfig) -> None:
        super().__init__()
        self.layer = layers
        self.config = config
        num_shares = len(reduction_of(config).keep_shares)
        self.significance_LD: nn.Parameter | None = None
        if num_shares:
            shape = (num_shares, int(config.hidden_size))
            self.significance_LD = nn.Parameter(torch.normal(0.0, SIGNIFICANCE_SPREAD, shape))
        self.dropped_weight = 0.0
        self.left_BK: Tensor | None = None
        self._recorded: list[TokenStates] | None = None

    @contextmanager
    def recording(self) -> Iterator[list[TokenStates]]:
        """Collect the hidden states of the forwards in the block, from the embeddings on."""
        states: list[TokenStates] = []
        self._recorded = states
        try:
            yield states
        finally:
            self._recorded = None

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **others: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Run the layers; the arguments are those of the module that stood here before."""
        weights_BT = _real_tokens(hidden_states, attention_mask)
        reduction, architecture = reduction_of(self.config), architecture_of(self.config)
        lengths_B = weights_BT.sum(dim=1).long().cpu().numpy()
        counts_LB = reduction.count_tokens(lengths_B, len(self.layer))
        states = TokenStates(values_BKD=hidden_states, weights_BK=weights_BT)
        self._record(states)
        for at, parts in enumerate(architecture.parts_of(self.layer)):
            if reduction.pool is not None and at == reduction.pool.before_layer:
                states = pool_states(states, reduction.pool)
            share = reduction.keep_shares[at] if at < len(reduction.keep_shares) else 1.0
            left, places_BK = states, None
            if share < 1:
                assert self.significance_LD is not None
                counts_B = torch.from_numpy(counts_LB[at + 1]).to(hidden_states.device)
                left, places_BK = self._drop(states, self.significance_LD[at], counts_B)
            values_BKD = self._run_layer(parts, states, places_BK)
            states = replace(left, values_BKD=values_BKD)
            self._record(states)
        self.left_BK = states.weights_BK
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states.values_BKD)

    def _record(self, states: TokenStates) -> None:
        if self._recorded is not None:
            self._recorded.append(states)

    def _run_layer(
        self, parts: LayerParts, states: TokenStates, places_BK: Tensor | None
    ) -> Tensor:
        """Output (B, K, D) of a layer for the tokens at these places, for all where it is None."""
        hidden_BTD = asking_BKD = states.values_BKD
        if places_BK is not None:
            asking_BKD = take_tokens(hidden_BTD, places_BK)
        query, key, value = (
            by_head(linear(values), parts.head_width)
            for linear, values in (
                (parts.query, asking_BKD),
                (parts.key, hidden_BTD),
                (parts.value, hidden_BTD),
            )
        )
        dropout = parts.probability_dropout
        dropped_share = dropout.p if dropout is not None and self.training else 0.0
        bias = _key_bias(states, query.dtype)
        if self.config._attn_implementation == "eager":
            context_BHKX = _attend(query, key, value, bias, dropped_share)
        else:
            context_BHKX = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=bias, dropout_p=dropped_share
            )
        context_BKW = context_BHKX.transpose(1, 2).flatten(2)
        assert parts.attention_norm is not None
        attended_BKD = _dropped_out(parts.output(context_BKW), parts.output_dropout)
        attended_BKD = parts.attention_norm(attended_BKD + asking_BKD)
        activate = getattr(parts.activated, parts.activation_name)
        further_BKD = _dropped_out(parts.down(activate(parts.up(attended_BKD))), parts.down_dropout)
        output_BKD: Tensor = parts.ffn_norm(further_BKD + attended_BKD)
        return output_BKD

    def _drop(
        self, states: TokenStates, weights_D: Tensor, counts_B: Tensor
    ) -> tuple[TokenStates, Tensor | None]:
        """Which tokens are left, and their places; None where the dropped ones stay for now."""
        may_stay_BT = states.weights_BK == 1
        # No product of matrices: mixed precision would round it.
        significance_BT = (states.values_BKD.float() * weights_D.float()).sum(dim=2)
        marks_BT = choose_tokens(significance_BT.detach(), may_stay_BT, counts_B)
        bias_BT = states.bias_BK
        if self.training and torch.is_grad_enabled():
            own_BT = _bias_of(significance_BT, marks_BT, may_stay_BT)
            bias_BT = own_BT if bias_BT is None else bias_BT + own_BT
        if self.dropped_weight > 0:
            less_BT = states.weights_BK.clamp(max=self.dropped_weight)
            weights_BT = torch.where(marks_BT, states.weights_BK, less_BT)
            return replace(states, weights_BK=weights_BT, bias_BK=bias_BT), None
        num_left = int(counts_B.max())
        places_BK = places_of(marks_BT, num_left)
        positions_BK = places_BK
        if states.positions_BK is not None:
            positions_BK = states.positions_BK.gather(1, places_BK)
        left_BK = torch.arange(num_left, device=counts_B.device) < counts_B[:, None]
        return replace(
            states,
            weights_BK=left_BK.to(states.weights_BK.dtype),
            positions_BK=positions_BK,
            bias_BK=None if bias_BT is None else bias_BT.gather(1, places_BK),
        ), places_BK


def install_reduction(model: PreTrainedModel, source: str = "config.json") -> None:
    """Give a model the reduced forward that its configuration asks for, if it does.

    Args:
        model: Encoder or classifier; it is changed.
        source: The file that the configuration is from, for messages.

    Raises:
        InputError: A setting makes no sense, or the architecture cannot do it.
    """
    if not reduction_of(model.config, source).reduces:
        return
    check_reducible(model.config.model_type, source)
    architecture, encoder = architecture_of(model.config), model.base_model
    assert architecture.layer_stack is not None
    before = reduced_layers(model)
    layers = ReducedLayers(architecture.layers(encoder), model.config)
    kept, new = (None if one is None else one.significance_LD for one in (before, layers))
    if kept is not None and new is not None and kept.shape == new.shape:
        layers.significance_LD = kept
    setattr(encoder, architecture.layer_stack, layers.train(encoder.training))


def change_reduction(model: PreTrainedModel, reduction: TokenReduction) -> None:
    """Change what a model does with its tokens: its configuration, and its forward.

    Raises:
        InputError: The settings make no sense for this model, or the architecture cannot do it.
    """
    set_reduction(model.config, reduction)
    install_reduction(model)


def reduced_layers(model: PreTrainedModel) -> ReducedLayers | None:
    """The module that runs the layers of a model which reduces its tokens; None for others."""
    stack = architecture_of(model.config).layer_stack
    layers = None if stack is None else getattr(model.base_model, stack)
    return layers if isinstance(layers, ReducedLayers) else None


def set_significance(model: PreTrainedModel, weights_LD: Tensor) -> None:
    """Say which tokens stay in a model that drops some.

    Args:
        model: The model; it is changed.
        weights_LD: What states are multiplied by, for each layer with a share.
    """
    layers = reduced_layers(model)
    assert layers is not None
    layers.significance_LD = nn.Parameter(weights_LD.detach().clone())


def significance_of(model: PreTrainedModel, num_layers: int) -> list[Tensor | None]:
    """What each layer multiplies states by to choose tokens; None for those that choose none."""
    layers = reduced_layers(model)
    weights: list[Tensor] = []
    if layers is not None and layers.significance_LD is not None:
        weights = list(layers.significance_LD)
    return [*weights, *[None] * (num_layers - len(weights))]


def run_with_states(model: PreTrainedModel, **inputs: Any) -> tuple[Any, list[TokenStates]]:
    """Output of a model, and the hidden states of its tokens from the embeddings on."""
    layers = reduced_layers(model)
    if layers is not None:
        with layers.recording() as states:
            return model(**inputs), states
    out = model(**inputs, output_hidden_states=True)
    mask_BT = inputs.get("attention_mask")
    weights_BT = torch.ones_like(out.hidden_states[0][:, :, 0]) if mask_BT is None else mask_BT
    return out, [
        TokenStates(values_BKD=values_BTD, weights_BK=weights_BT)
        for values_BTD in out.hidden_states
    ]


def _real_tokens(hidden_BTD: Tensor, mask: Tensor | None) -> Tensor:
    """1 for tokens and 0 for padding, (B, T), of the mask that transformers makes of its own."""
    if mask is None:
        return torch.ones(hidden_BTD.shape[:2], device=hidden_BTD.device)
    keys_BT = mask[:, 0, 0]
    is_real_BT = keys_BT if keys_BT.dtype == torch.bool else keys_BT == 0
    return is_real_BT.float()


def by_head(values_BTW: Tensor, head_width: int) -> Tensor:
    """Values of each head by itself, (B, H, T, X)."""
    num_rows, num_tokens, _ = values_BTW.shape
    return values_BTW.reshape(num_rows, num_tokens, -1, head_width).transpose(1, 2)


def _key_bias(states: TokenStates, dtype: torch.dtype) -> Tensor | None:
    """What is added to the scores of each key, (B, 1, 1, K); None where that is 0."""
    bias_BK = states.bias_BK
    if bias_BK is None and bool((states.weights_BK == 1).all()):
        return None
    weights_BK = states.weights_BK.log()
    total_BK = weights_BK if bias_BK is None else weights_BK + bias_BK
    return total_BK.to(dtype)[:, None, None]


def _bias_of(significance_BT: Tensor, marks_BT: Tensor, may_stay_BT: Tensor) -> Tensor:
    """Zeros (B, T) with the gradient of the logarithm of each token's gate; the first has none.

    Args:
        significance_BT: How much each token matters.
        marks_BT: Those that stay.
        may_stay_BT: Those that these were chosen from.
    """
    num_B1 = may_stay_BT.sum(dim=1, keepdim=True)
    centered_BT = (significance_BT - _mean(significance_BT, may_stay_BT)) * may_stay_BT
    spread_B1 = (centered_BT.square().sum(dim=1, keepdim=True) / num_B1 + 1e-6).sqrt()
    scores_BT = centered_BT / spread_B1
    others_BT = marks_BT.clone()
    others_BT[:, 0] = False
    least_B1 = scores_BT.detach().masked_fill(~others_BT, math.inf).amin(dim=1, keepdim=True)
    above_BT = scores_BT - least_B1.nan_to_num(posinf=0.0)
    is_chosen_BT = may_stay_BT.clone()
    is_chosen_BT[:, 0] = False
    log_gates_BT = functional.logsigmoid(above_BT / _TEMPERATURE) * is_chosen_BT
    return log_gates_BT - log_gates_BT.detach()


def _mean(values_BT: Tensor, marks_BT: Tensor) -> Tensor:
    """Mean (B, 1) of the marked values of each row."""
    return (values_BT * marks_BT).sum(dim=1, keepdim=True) / marks_BT.sum(dim=1, keepdim=True)


def _attend(
    query_BHQX: Tensor,
    key_BHTX: Tensor,
    value_BHTX: Tensor,
    bias_B11T: Tensor | None,
    dropped_share: float,
) -> Tensor:
    """Attention as transformers computes it unfused."""
    scores_BHQT = query_BHQX @ key_BHTX.transpose(2, 3) / math.sqrt(query_BHQX.shape[3])
    if bias_B11T is not None:
        scores_BHQT = scores_BHQT + bias_B11T
    probabilities_BHQT = scores_BHQT.softmax(dim=-1, dtype=torch.float32)
    dropped_BHQT = functional.dropout(probabilities_BHQT, dropped_share, dropped_share > 0)
    return dropped_BHQT.to(value_BHTX.dtype) @ value_BHTX


def _dropped_out(values_BKD: Tensor, dropout: nn.Dropout | None) -> Tensor:
    values: Tensor = values_BKD if dropout is None else dropout(values_BKD)
    return values
