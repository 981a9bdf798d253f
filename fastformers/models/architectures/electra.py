"""ELECTRA: BERT's layers, a head of its own (Clark et al. 2020, arXiv:2003.10555).

Its embeddings may be narrower than its layers; then a projection stands between them.
"""

from dataclasses import replace

from torch import nn
from transformers import PreTrainedModel

from fastformers.errors import InputError
from fastformers.models.architectures.architecture import EmbeddingParts, HeadParts
from fastformers.models.architectures.bert import BERT, bert_embeddings


def _embeddings(encoder: PreTrainedModel) -> EmbeddingParts:
    # There is a projection only where the widths differ.
    projection = getattr(encoder, "embeddings_project", None)
    return replace(bert_embeddings(encoder), projection=projection)


def _head(model: PreTrainedModel) -> HeadParts:
    head = model.classifier
    if not isinstance(head, nn.Linear):
        return HeadParts(hidden=head.dense, activation="gelu", output=head.out_proj)
    config = model.config  # a multiple-choice model
    if config.summary_type != "first" or not config.summary_use_proj:
        raise InputError("an ELECTRA summary that is not a projection of the first token")
    return HeadParts(
        hidden=model.sequence_summary.summary, activation=config.summary_activation, output=head
    )


ELECTRA = replace(
    BERT, embeddings=_embeddings, head=_head, embedding_width_setting="embedding_size"
)
