"""RoBERTa and XLM-R: BERT's layers, a head of their own (Liu et al. 2019, arXiv:1907.11692).

Positions are counted from the number after the padding id; the rows before it stay unused.
"""

from dataclasses import replace

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from fastformers.models.architectures.architecture import HeadParts
from fastformers.models.architectures.bert import BERT, bert_head


def roberta_head(model: PreTrainedModel) -> HeadParts:
    """A dense layer of the head's own; multiple choice has BERT's pooler in its place."""
    head = model.classifier
    if isinstance(head, nn.Linear):  # the head of a multiple-choice model
        return bert_head(model)
    return HeadParts(hidden=head.dense, activation="tanh", output=head.out_proj)


def _first_position(config: PretrainedConfig) -> int:
    return int(config.pad_token_id) + 1


ROBERTA = replace(BERT, head=roberta_head, first_position=_first_position)
