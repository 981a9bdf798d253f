"""A model without layers: the mean of trained vectors of a row's tokens, and a head that reads it.

    teacher -> static_student -> [static_vectors] -> distill -> graph

Each token of the vocabulary has one vector, whatever stands beside it, and the vector's length is
the token's weight. Of a pair of texts each has a mean of its own, and the head reads both, their
distance in each dimension and their product. The classes are models of transformers, so they are
saved, loaded, trained and copied as all others; nothing here knows of teachers, training or graphs.

Shape suffixes: B rows of a batch, T padded tokens, D width of a vector, P values that the head
reads, C outputs.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

MODEL_TYPE = "static-vectors"
# What the head reads of a pair of texts: both means, their distance and their product.
PAIR_PARTS = 4


class StaticVectorsConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes of a model of static vectors.

    Attributes:
        vocab_size: Tokens that have a vector.
        hidden_size: Width of a vector.
        max_position_embeddings: Tokens of the longest row that the teacher could read.
        head_width: Inner values of the head.
        head_dropout: Share of them that is dropped while the model is trained.
        text_pairs: Whether the head reads the two texts of a pair apart.
        num_hidden_layers: There are none.
        initializer_range: Standard deviation of new weights.
        hidden_act: Activation of the head.
    """

    model_type = MODEL_TYPE

    vocab_size: int = 30522
    hidden_size: int = 384
    max_position_embeddings: int = 512
    head_width: int = 384
    head_dropout: float = 0.1
    text_pairs: bool = False
    num_hidden_layers: int = 0
    hidden_act: str = "relu"
    initializer_range: float = 0.05
    pad_token_id: int | None = 0


class StaticVectorsModel(PreTrainedModel):  # type: ignore[misc]
    """The vectors alone, whose mean embeds a text (`SentenceEncoder`)."""

    config_class = StaticVectorsConfig
    base_model_prefix = "vectors"

    def __init__(self, config: StaticVectorsConfig) -> None:
        """Make the table of a vocabulary."""
        super().__init__(config)
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of vectors."""
        return self.tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the table."""
        self.tokens = value

    def forward(self, input_ids: torch.Tensor, **others: Any) -> BaseModelOutput:
        """Vectors (B, T, D) of the tokens of each row."""
        return BaseModelOutput(last_hidden_state=self.tokens(input_ids))

    def mean(self, input_ids: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """Mean vectors (B, D) of the tokens under a mask; zeros of none."""
        weights_BT = mask_BT / mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
        return functional.embedding_bag(
            input_ids, self.tokens.weight, per_sample_weights=weights_BT, mode="sum"
        )


class StaticVectorsForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    """Vectors and a head with one hidden layer, for every task that a sequence classifier has."""

    config_class = StaticVectorsConfig
    base_model_prefix = "vectors"

    def __init__(self, config: StaticVectorsConfig) -> None:
        """Make vectors and head of random weights."""
        super().__init__(config)
        num_inputs = config.hidden_size * (PAIR_PARTS if config.text_pairs else 1)
        self.vectors = StaticVectorsModel(config)
        self.hidden = nn.Linear(num_inputs, config.head_width)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(config.head_width, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput:
        """Outputs (B, C) of rows; the mask may be left out where rows have one length.

        Args:
            input_ids: Tokens (B, T).
            attention_mask: 1 for tokens of the row, 0 for padding.
            token_type_ids: 1 for tokens of the second text of a pair.
            others: What models with layers are asked for.
        """
        dtype = self.vectors.tokens.weight.dtype
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        mask_BT = attention_mask.to(dtype)
        if self.config.text_pairs:
            assert token_type_ids is not None
            second_BT = mask_BT * token_type_ids.to(dtype)
            pooled_BP = join_means(
                self.vectors.mean(input_ids, mask_BT - second_BT),
                self.vectors.mean(input_ids, second_BT),
            )
        else:
            pooled_BP = self.vectors.mean(input_ids, mask_BT)
        inner = self.activation(self.hidden(pooled_BP))
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(inner)))


def join_means(first_BD: torch.Tensor, second_BD: torch.Tensor) -> torch.Tensor:
    """What the head reads of the means of two texts, (B, P)."""
    return torch.cat(
        [first_BD, second_BD, (first_BD - second_BD).abs(), first_BD * second_BD], dim=1
    )


# So that transformers' own loaders, and those here, find the classes by the name in a config.json.
AutoConfig.register(MODEL_TYPE, StaticVectorsConfig)
AutoModel.register(StaticVectorsConfig, StaticVectorsModel)
AutoModelForSequenceClassification.register(
    StaticVectorsConfig, StaticVectorsForSequenceClassification
)
