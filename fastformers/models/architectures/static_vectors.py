"""Static vectors: no layers, no positions; a head on the mean of the tokens' vectors.

As Model2Vec's (minishlab/model2vec): a token's vector does not depend on the tokens beside it.
"""

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from fastformers.models.architectures.architecture import (
    Architecture,
    EmbeddingParts,
    HeadParts,
    Pooling,
)
from fastformers.models.variants.static_vectors import MODEL_TYPE

__all__ = ["MODEL_TYPE", "STATIC_VECTORS"]


def _embeddings(encoder: PreTrainedModel) -> EmbeddingParts:
    return EmbeddingParts(tokens=encoder.tokens, positions=None, token_types=None, norm=None)


def _layers(encoder: PreTrainedModel) -> nn.ModuleList:
    return nn.ModuleList()


def _head(model: PreTrainedModel) -> HeadParts:
    return HeadParts(
        hidden=model.hidden,
        activation=model.config.hidden_act,
        output=model.classifier,
    )


def _pooling(config: PretrainedConfig) -> Pooling:
    return "texts" if config.text_pairs else "mean"


STATIC_VECTORS = Architecture(
    embeddings=_embeddings,
    layers=_layers,
    parts=None,
    head=_head,
    pooling=_pooling,
)
