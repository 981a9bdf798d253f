"""Run the layers of a model so that they drop or pool tokens on the way.

    config.keep_tokens, config.pool_tokens -> [reduced_layers] -> any forward of the model

`install_reduction` puts `ReducedLayers` in the place of the module that runs a model's layers. The
layers stay where they are, with their names and hooks, and so do weights, embeddings and heads:
whatever calls the model gets the reduced forward. Tokens are really left out, so training is
faster, too. What a layer has left of a row depends on that row alone.

Significance of a token is the attention it receives in a layer: the sum of the attention
probabilities over heads and over the tokens that attend (PoWER-BERT, Goyal et al. 2020,
arXiv:2001.08950), or over heads for the first token alone where the model's head reads only that.
It is known before the output of attention is projected, so from there on the dropped tokens are not
computed. This module knows nothing of losses or of how shares are chosen.

Shape suffixes: B rows of a batch, T tokens, K tokens that are left, H heads, Q tokens that attend,
X values of a head, W heads x head width, D hidden width, N rows.
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
    KeptBy,
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


class ReducedLayers(nn.Module):
    """The layers of a model, run one after the other on fewer and fewer tokens.

    Attributes:
        layer: The layers.
        dropped_weight: Weight (0-1) that later layers give to a token which is to be dropped. Above
            0 such tokens stay: training begins at 1, where nothing is dropped yet, and goes to 0.
        left_BK: Weights of the tokens that the last forward ended with.
    """

    def __init__(self, layers: nn.ModuleList, config: PretrainedConfig) -> None:
        super().__init__()
        self.layer = layers
        self.config = config
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
            counts_B = None
            if share < 1:
                counts_B = torch.from_numpy(counts_LB[at + 1])
            states = self._run_layer(parts, states, counts_B)
            self._record(states)
        self.left_BK = states.weights_BK
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states.values_BKD)

    def _record(self, states: TokenStates) -> None:
        if self._recorded is not None:
            self._recorded.append(states)

    def _run_layer(
        self, parts: LayerParts, states: TokenStates, counts_B: Tensor | None
    ) -> TokenStates:
        """One layer; all tokens leave it unless it is said how many of each row do."""
        hidden_BTD = states.values_BKD
        query, key, value = (
            _by_head(linear(hidden_BTD), parts.head_width)
            for linear in (parts.query, parts.key, parts.value)
        )
        dropout = parts.probability_dropout
        dropped_share = dropout.p if dropout is not None and self.training else 0.0
        if counts_B is None and self.config._attn_implementation != "eager":
            bias = _key_bias(states, query.dtype)
            context_BHTX = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=bias, dropout_p=dropped_share
            )
        else:
            context_BHTX, probabilities_BHQT = _attend(query, key, value, states, dropped_share)
        context_BTW = context_BHTX.transpose(1, 2).flatten(2)
        if counts_B is not None:
            received_BT = _received(probabilities_BHQT, states, reduction_of(self.config).kept_by)
            states, places_BK = self._drop(states, received_BT, counts_B)
            if places_BK is not None:
                context_BTW = take_tokens(context_BTW, places_BK)
                hidden_BTD = take_tokens(hidden_BTD, places_BK)
        assert parts.attention_norm is not None
        attended_BKD = _dropped_out(parts.output(context_BTW), parts.output_dropout)
        attended_BKD = parts.attention_norm(attended_BKD + hidden_BTD)
        activate = getattr(parts.activated, parts.activation_name)
        further_BKD = _dropped_out(parts.down(activate(parts.up(attended_BKD))), parts.down_dropout)
        return replace(states, values_BKD=parts.ffn_norm(further_BKD + attended_BKD))

    def _drop(
        self, states: TokenStates, received_BT: Tensor, counts_B: Tensor
    ) -> tuple[TokenStates, Tensor | None]:
        """Which tokens are left, and their places; None where the dropped ones stay for now."""
        counts_B = counts_B.to(received_BT.device)
        marks_BT = choose_tokens(received_BT, states.weights_BK == 1, counts_B)
        if self.dropped_weight > 0:
            less_BT = states.weights_BK.clamp(max=self.dropped_weight)
            weights_BT = torch.where(marks_BT, states.weights_BK, less_BT)
            return replace(states, weights_BK=weights_BT), None
        num_left = int(counts_B.max())
        places_BK = places_of(marks_BT, num_left)
        positions_BK = places_BK
        if states.positions_BK is not None:
            positions_BK = states.positions_BK.gather(1, places_BK)
        left_BK = torch.arange(num_left, device=counts_B.device) < counts_B[:, None]
        return replace(
            states, weights_BK=left_BK.to(states.weights_BK.dtype), positions_BK=positions_BK
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
    layers = ReducedLayers(architecture.layers(encoder), model.config)
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


def _by_head(values_BTW: Tensor, head_width: int) -> Tensor:
    """Values of each head by itself, (B, H, T, X)."""
    num_rows, num_tokens, _ = values_BTW.shape
    return values_BTW.reshape(num_rows, num_tokens, -1, head_width).transpose(1, 2)


def _key_bias(states: TokenStates, dtype: torch.dtype) -> Tensor | None:
    """What is added to the scores of each key, (B, 1, 1, K); None where that is 0."""
    if bool((states.weights_BK == 1).all()):
        return None
    return states.weights_BK.log().to(dtype)[:, None, None]


def _attend(
    query_BHQX: Tensor,
    key_BHTX: Tensor,
    value_BHTX: Tensor,
    states: TokenStates,
    dropped_share: float,
) -> tuple[Tensor, Tensor]:
    """Attention as transformers computes it unfused, and its probabilities before any dropout."""
    scores_BHQT = query_BHQX @ key_BHTX.transpose(2, 3) / math.sqrt(query_BHQX.shape[3])
    bias_B11T = _key_bias(states, scores_BHQT.dtype)
    if bias_B11T is not None:
        scores_BHQT = scores_BHQT + bias_B11T
    probabilities_BHQT = scores_BHQT.softmax(dim=-1, dtype=torch.float32)
    dropped_BHQT = functional.dropout(probabilities_BHQT, dropped_share, dropped_share > 0)
    return dropped_BHQT.to(value_BHTX.dtype) @ value_BHTX, probabilities_BHQT


@torch.no_grad()
def _received(probabilities_BHQT: Tensor, states: TokenStates, kept_by: KeptBy) -> Tensor:
    """Attention that each token received from the first one or all that stay, (B, T)."""
    if kept_by == "first":
        return probabilities_BHQT[:, :, 0].detach().sum(dim=1)
    attending_BQ = (states.weights_BK == 1).float()
    # No product of matrices: mixed precision would round it.
    return (probabilities_BHQT.detach().sum(dim=1) * attending_BQ[:, :, None]).sum(dim=1)


def _dropped_out(values_BKD: Tensor, dropout: nn.Dropout | None) -> Tensor:
    values: Tensor = values_BKD if dropout is None else dropout(values_BKD)
    return values
