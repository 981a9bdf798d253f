"""Refuse settings of tokens that a recipe's model cannot have, before anything is trained.

    recipe, teacher -> [token_checks] -> compress

Which layers may drop tokens depends on the student, which is not there yet: its layers are counted
from the recipe. This module knows nothing of training.

Shape suffixes: N training rows.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fastformers.compression.pruning.keep_tokens import (
    count_dropping_layers,
    reads_all_tokens,
)
from fastformers.compression.recipe_config import RecipeConfig, StudentConfig
from fastformers.compression.students.student import spread_layers
from fastformers.errors import InputError
from fastformers.models.architectures import check_reducible
from fastformers.models.checkpoint import load_config
from fastformers.models.variants.token_reduction import (
    TokenPool,
    TokenReduction,
    check_order,
    reduction_of,
)


def check_token_settings(
    recipe: RecipeConfig,
    model: PreTrainedModel,
    teacher: Path,
    lengths_N: NDArray[np.int64] | None,
) -> None:
    """Refuse what the student of a recipe cannot do with its tokens.

    Args:
        recipe: The recipe.
        model: The teacher.
        teacher: Its directory, for messages.
        lengths_N: Tokens of training rows; None where they are not known yet.

    Raises:
        InputError: A setting does not suit the student, or a model drops tokens already that others
            learn from.
    """
    student, tokens = recipe.student, recipe.tokens
    recovers = recipe.prune.is_wanted or tokens.is_wanted
    teaches = student.is_wanted or recovers
    _check_reduced(recipe, reduction_of(model.config), teacher, teaches=teaches)
    own = None if student.student is None else load_config(student.student)
    if student.student is not None:
        _check_reduced(recipe, reduction_of(own), student.student, teaches=recovers)
    wanted = []
    if student.pool_tokens is not None:
        wanted.append(f"--pool-tokens {student.pool_tokens}")
    if tokens.is_wanted:
        wanted.append(f"--keep-tokens {','.join(tokens.names)}")
    if not wanted:
        return
    config = own or model.config
    for flag in wanted:
        check_reducible(config.model_type, flag)
    num_layers = student.student_layers or int(config.num_hidden_layers)
    pool = _pool_of_student(student, reduction_of(config), config.num_hidden_layers)
    if student.pool_tokens is not None and student.pool_before_layer >= num_layers:
        raise InputError(
            f"--pool-before-layer {student.pool_before_layer}: the student has {num_layers} "
            f"layers, 0 to {num_layers - 1}"
        )
    if tokens.is_wanted:
        all_read = reads_all_tokens(model)
        most = count_dropping_layers(num_layers, reads_all_tokens=all_read)
        first = 0 if pool is None else pool.before_layer
        if len(tokens.shares) > most or first >= most:
            why = "" if all_read else " (of the last one, only the first token is read anyway)"
            advice = f"give no more than {most}" if first < most else "leave it out"
            raise InputError(
                f"{wanted[-1]}: of {num_layers} layers, {max(most - first, 0)} may drop "
                f"tokens{why}; {advice}"
            )
        reduction = TokenReduction(keep_shares=tokens.shares, pool=pool)
        check_order(reduction, wanted[-1])
        if lengths_N is None or not tokens.shares:
            return
        if not reduction.drops_any(lengths_N, num_layers):
            raise InputError(
                f"{wanted[-1]}: no text loses a token: all are too short for these shares; give "
                "smaller ones, or leave it out"
            )


def _check_reduced(
    recipe: RecipeConfig, reduction: TokenReduction, path: Path, *, teaches: bool
) -> None:
    """Refuse to train from a model that drops tokens, or to pool twice.

    Args:
        recipe: The recipe.
        reduction: What the teacher, or a student of its own, does with its tokens.
        path: Its directory.
        teaches: Whether a model learns from it.
    """
    if reduction.drops and teaches:
        raise InputError(
            f"{path}: drops tokens already (keep_tokens in its config.json), and what is made of "
            "it learns from all of them: give the model from before that, or leave students, "
            "pruning and --keep-tokens out"
        )
    if reduction.pool is not None and recipe.student.pool_tokens is not None:
        raise InputError(
            f"--pool-tokens {recipe.student.pool_tokens}: {path} pools tokens already; leave it out"
        )
    trains = teaches or recipe.student.is_wanted
    if reduction.reduces and trains and recipe.distill.attention_weight:
        raise InputError(
            f"--attention-weight {recipe.distill.attention_weight:g}: {path} drops or pools "
            "tokens, so its attention has no counterpart; leave it out"
        )


def _pool_of_student(
    student: StudentConfig, origin: TokenReduction, num_origin: int
) -> TokenPool | None:
    """How the student pools: as it is told, or as the model of so many layers that it begins as."""
    if student.pool_tokens is not None:
        return TokenPool(
            before_layer=student.pool_before_layer,
            every=student.pool_tokens,
            how=student.pool_how,
        )
    kept = spread_layers(num_origin, student.student_layers or num_origin)
    return origin.of_layers(kept).pool
