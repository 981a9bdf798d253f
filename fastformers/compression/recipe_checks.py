"""Refuse a recipe that cannot be made of a teacher, before anything is trained or measured.

    recipe, teacher -> [recipe_checks] -> compress

What a stage finds out by itself it would say after the trainings before it. A search leaves out by
itself what is not for its teacher. This module trains nothing.

Shape suffixes: N training rows.
"""

from pathlib import Path

from transformers import PretrainedConfig

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.pruning.pruning_plan import count_uniform
from fastformers.compression.recipe_config import PruneConfig, RecipeConfig
from fastformers.compression.stages.reducing_stages import TOKEN_ROWS
from fastformers.compression.stages.token_checks import check_token_settings
from fastformers.compression.students.student import check_student, check_width, spread_layers
from fastformers.errors import InputError
from fastformers.inference.tasks import EMBEDDING
from fastformers.models.architectures import shrinkable_architecture_of
from fastformers.models.checkpoint import load_config
from fastformers.models.layers import LayerShape, layer_parts, unpruned_shape
from fastformers.models.loading import task_of
from fastformers.models.losses import DISTILLABLE_TASKS


def check_recipe(recipe: RecipeConfig, teacher: ModelArtifact, path: Path) -> None:
    """Refuse stages that are not for this teacher.

    Args:
        recipe: The recipe.
        teacher: The teacher, with its training rows.
        path: Its directory, for messages.

    Raises:
        InputError: A setting does not suit the teacher, its task or the training rows.
    """
    student, prune, task = recipe.student, recipe.prune, task_of(teacher.model)
    is_trained = recipe.has_student
    if is_trained and task not in DISTILLABLE_TASKS:
        raise InputError(
            f"{path}: its task is {task}; students and pruning are for "
            f"{', '.join(map(str, DISTILLABLE_TASKS))}: leave students and pruning out"
        )
    if task == EMBEDDING and recipe.distill.hard_weight == 1:
        raise InputError(
            f"--hard-weight 1: {path} embeds texts, which have no labels to learn from; give a "
            "share below 1"
        )
    if student.is_static:
        return
    if task == EMBEDDING and (student.student or student.student_width):
        raise InputError(
            f"{path} embeds texts, and a student's vectors are compared with its own: "
            "give --student-layers, and no --student or --student-width"
        )
    _check_student(recipe, teacher)
    if prune.is_wanted:
        _check_pruning(recipe, teacher)
    lengths_N = None
    if recipe.trim.trim_vocabulary is None:  # else texts may have more tokens
        lengths_N = teacher.tokenize(teacher.train.sample(TOKEN_ROWS)).lengths_N
    check_token_settings(recipe, teacher.model, path, lengths_N)


def _check_student(recipe: RecipeConfig, teacher: ModelArtifact) -> None:
    """Refuse a student that cannot be cut or loaded."""
    student, model = recipe.student, teacher.model
    if student.student is not None:
        if recipe.trim.trim_vocabulary is None:
            check_student(student.student, teacher.tokenizer_json)
        return
    if student.student_layers or student.student_width or recipe.prune.is_wanted:
        shrinkable_architecture_of(model.config)
    if student.student_layers is not None:
        spread_layers(model.config.num_hidden_layers, student.student_layers)
    if student.student_width is not None:
        check_width(model, student.student_width)


def _check_pruning(recipe: RecipeConfig, teacher: ModelArtifact) -> None:
    """Refuse shares, and multiples, by which no layer would lose anything."""
    student, prune, model = recipe.student, recipe.prune, teacher.model
    config = model.config if student.student is None else load_config(student.student)
    whole = unpruned_shape(config)
    shapes = _shapes_of(config, whole)
    if student.student_width is not None:
        num_heads = student.student_width // layer_parts(model)[0].head_width
        whole = LayerShape(num_heads=num_heads, ffn_width=whole.ffn_width)
        shapes = [whole]
    if student.student_layers is not None and len(shapes) > 1:
        shapes = [shapes[at] for at in spread_layers(len(shapes), student.student_layers)]
    left = _left_by(prune, whole)
    if all(one.num_heads <= left.num_heads and one.ffn_width <= left.ffn_width for one in shapes):
        heads, ffn = max(one.num_heads for one in shapes), max(one.ffn_width for one in shapes)
        raise InputError(
            f"--prune-heads {prune.prune_heads:g}, --prune-ffn {prune.prune_ffn:g}: nothing would "
            f"be pruned: a layer has {heads} heads and {ffn} neurons at most, of which 1 and "
            f"--prune-multiple-of {prune.prune_multiple_of} stay at least; ask for larger shares, "
            "or a smaller multiple"
        )


def _shapes_of(config: PretrainedConfig, whole: LayerShape) -> list[LayerShape]:
    """The layers of a model as they are, which may have been pruned before."""
    pruned = getattr(config, "pruned_layers", None)
    return (
        [whole] * config.num_hidden_layers if pruned is None else [LayerShape(**p) for p in pruned]
    )


def _left_by(prune: PruneConfig, whole: LayerShape) -> LayerShape:
    """What each layer keeps when it loses the shares; the same time is a `latency` budget."""
    heads, neurons = whole.num_heads, whole.ffn_width
    if prune.prune_heads:
        heads = count_uniform(heads, prune.prune_heads, 1)
    if prune.prune_ffn:
        neurons = count_uniform(neurons, prune.prune_ffn, prune.prune_multiple_of)
    return LayerShape(num_heads=heads, ffn_width=neurons)
