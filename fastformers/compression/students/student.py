"""Cut a student out of its teacher, with fewer layers or a narrower residual stream, or load one.

    teacher -> [student] -> distill -> prune -> export

Both cuts give a standard Hugging Face model that any library loads. Both are only a start for
distillation: a model without its layers or dimensions performs poorly before it is trained. This
module knows nothing of training or recipes.

Shape suffixes: H heads of one layer, D hidden width.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from fastformers.compression.pruning.pruning_plan import Importance, Indices, top_positions
from fastformers.errors import InputError
from fastformers.models.architectures import (
    check_model_type,
    check_supported,
    shrinkable_architecture_of,
)
from fastformers.models.checkpoint import load_config, naming_file
from fastformers.models.layers import (
    keep_columns,
    keep_heads,
    keep_inputs,
    keep_norm,
    keep_outputs,
    layer_list,
    layer_parts,
)
from fastformers.models.loading import class_names, new_classifier, task_of
from fastformers.models.model_files import read_config
from fastformers.models.trainer import without_attention_dropout
from fastformers.models.variants.reduced_layers import set_significance, significance_of
from fastformers.models.variants.token_reduction import reduction_of, set_reduction


def spread_layers(num_teacher: int, num_student: int) -> list[int]:
    """Layers of a teacher to keep, evenly spread from its first to its last.

    Raises:
        InputError: `num_student` is not from 1 to `num_teacher`.

    Source:
        For 6 of 12 layers these are DistilBERT's (Sanh et al. 2019, arXiv:1910.01108).
    """
    if not 1 <= num_student <= num_teacher:
        raise InputError(f"a student of {num_student} layers: its teacher has {num_teacher}")
    return [round(at) for at in np.linspace(0, num_teacher - 1, num_student).tolist()]


def cut_layers(model: PreTrainedModel, keep: Sequence[int]) -> PreTrainedModel:
    """A copy of the model with only the given layers, in the given order.

    Raises:
        InputError: A layer is not there or given twice, none is given, or the architecture cannot
            be cut.
    """
    model = copy.deepcopy(model)
    layers = layer_list(model)
    reduction = reduction_of(model.config)
    outside = [at for at in keep if not 0 <= at < len(layers)]
    if outside or len(keep) == 0 or len(set(keep)) < len(keep):
        raise InputError(
            f"layers {', '.join(map(str, keep)) or 'none'} of a teacher that has "
            f"0 to {len(layers) - 1}: name each at most once"
        )
    significance = significance_of(model, len(layers))
    kept = [layers[at] for at in keep]
    del layers[:]
    layers.extend(kept)
    model.config.num_hidden_layers = len(keep)
    layer_settings = shrinkable_architecture_of(model.config).layer_settings
    for name in ("pruned_layers", *layer_settings):
        settings = getattr(model.config, name, None)
        if settings is not None:
            setattr(model.config, name, [settings[at] for at in keep])
    if reduction.reduces:
        set_reduction(model.config, reduction.of_layers(keep))
    if reduction.drops:
        none_D = torch.zeros(model.config.hidden_size)  # of a layer that keeps all
        rows = [none_D if (own_D := significance[at]) is None else own_D for at in keep]
        set_significance(model, torch.stack(rows))
    return model


def cut_width(model: PreTrainedModel, hidden_width: int, importance: Importance) -> PreTrainedModel:
    """A copy of the model with fewer hidden dimensions, the most important ones.

    Embeddings, normalizations, projections and the classification head lose the same dimensions.
    Heads keep their width, so each layer keeps its `hidden_width / head width` most important
    heads; feed-forward neurons all stay, for `plan_pruning`. The inner units of the classification
    head are cut by the size of their weights. Normalizations now see fewer dimensions, so every
    activation shifts: train the result.

    Args:
        model: A classifier that was not pruned; it is not changed.
        hidden_width: Dimensions to keep, a multiple of the head width.
        importance: Importance of this model's parts.

    Raises:
        InputError: The width is no such multiple, or is that of ELECTRA's narrower embeddings (a
            standard ELECTRA then has no projection); the model was pruned, or cannot be cut.
    """
    check_width(model, hidden_width)
    model = copy.deepcopy(model)
    architecture = shrinkable_architecture_of(model.config)
    layers = layer_parts(model)
    kept = top_positions(importance.hidden_D, hidden_width)
    _cut_embeddings(model, kept)
    num_heads = hidden_width // layers[0].head_width
    for layer, heads_H in zip(layers, importance.heads, strict=True):
        keep_heads(layer, top_positions(heads_H, num_heads))
        for reader in (layer.query, layer.key, layer.value, *layer.into_ffn):
            keep_inputs(reader, kept)
        for writer in (layer.output, layer.down):
            keep_outputs(writer, kept)
        for norm in layer.norms:
            keep_norm(norm, kept)
    final_norm = architecture.final_norm(model.base_model)
    if final_norm is not None:
        keep_norm(final_norm, kept)
    _cut_head(model, kept)
    if reduction_of(model.config).drops:
        rows = [one for one in significance_of(model, len(layers)) if one is not None]
        set_significance(model, torch.stack(rows)[:, kept.tolist()])
    model.config.hidden_size = hidden_width
    model.config.num_attention_heads = num_heads
    return model


def check_width(model: PreTrainedModel, hidden_width: int) -> None:
    """Refuse a width to which `cut_width` cannot cut a model; the errors are as there."""
    if getattr(model.config, "pruned_layers", None) is not None:
        raise InputError("a pruned model cannot be cut narrower: cut first, then prune")
    head_width, full_width = layer_parts(model)[0].head_width, model.config.hidden_size
    if hidden_width % head_width or not 0 < hidden_width <= full_width:
        raise InputError(
            f"hidden width {hidden_width}: give a multiple of the head width {head_width} "
            f"up to {full_width}"
        )
    architecture = shrinkable_architecture_of(model.config)
    embedding_width = getattr(model.config, architecture.embedding_width_setting)
    if hidden_width == embedding_width < full_width:
        raise InputError(
            f"hidden width {hidden_width} is that of the embeddings: the student would have no "
            "projection between them and its layers; choose another"
        )


def _cut_embeddings(model: PreTrainedModel, kept: Indices) -> None:
    architecture = shrinkable_architecture_of(model.config)
    embeddings = architecture.embeddings(model.base_model)
    if embeddings.projection is not None:
        keep_outputs(embeddings.projection, kept)
        return
    for table in embeddings.tables:
        keep_columns(table, kept)
    assert embeddings.norm is not None, "what can be cut has a norm there"
    keep_norm(embeddings.norm, kept)
    setattr(model.config, architecture.embedding_width_setting, len(kept))


def _cut_head(model: PreTrainedModel, kept: Indices) -> None:
    head = shrinkable_architecture_of(model.config).head(model)
    keep_inputs(head.hidden, kept)
    with torch.no_grad():
        sizes_D = head.hidden.weight.norm(dim=1) * head.output.weight.norm(dim=0)
    inner = top_positions(sizes_D.numpy(), len(kept))
    keep_outputs(head.hidden, inner)
    if head.norm is not None:
        keep_norm(head.norm, inner)
    keep_inputs(head.output, inner)


def load_student(path: Path, teacher: PreTrainedModel, tokenizer_json: str) -> PreTrainedModel:
    """Load a checkpoint to distill a teacher into: an encoder, with or without a classifier.

    Args:
        path: Directory of a pretrained Hugging Face encoder.
        teacher: Model whose task and classes the student gets.
        tokenizer_json: The teacher's tokenizer; the student must have the same vocabulary.

    Raises:
        InputError: There is no model or no tokenizer, the architecture could not be exported, or
            the vocabulary is another one.
    """
    check_student(path, tokenizer_json)
    config = load_config(path)
    with naming_file(path):
        student = new_classifier(
            path,
            task_of(teacher),
            class_names(teacher.config),
            dtype=torch.float32,
            **without_attention_dropout(config),
        )
    check_supported(student, f"--student {path}")
    return student.eval()


def check_student(path: Path, tokenizer_json: str) -> None:
    """Refuse a checkpoint that a teacher with this tokenizer cannot be distilled into.

    Raises:
        InputError: There is no model or no tokenizer, the architecture is not known, or the
            vocabulary is another one.
    """
    check_model_type(read_config(path)["model_type"], f"--student {path}")
    if not (path / "tokenizer.json").is_file():
        raise InputError(f"--student {path}: no tokenizer.json to compare with the teacher's")
    with naming_file(path / "tokenizer.json"):
        ours = Tokenizer.from_file(str(path / "tokenizer.json")).get_vocab()
    theirs = Tokenizer.from_str(tokenizer_json).get_vocab()
    if ours != theirs:
        raise InputError(
            f"--student {path}: its vocabulary ({len(ours):,} tokens) is not the teacher's "
            f"({len(theirs):,}); distillation needs the same one, so choose a student of the "
            "teacher's family and leave --trim-vocabulary out"
        )
