from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="the extra compress is not installed")

from fastformers.compression.recipe_config import PruneConfig, RecipeConfig, StudentConfig
from fastformers.compression.search.candidate import describe, kind_of
from fastformers.compression.token_config import TokenConfig

TEACHER = RecipeConfig()
STUDENT = RecipeConfig(student=StudentConfig(student_layers=4))
PRUNED = replace(STUDENT, prune=PruneConfig(prune_heads=0.33, prune_ffn=0.5))


@pytest.mark.parametrize(
    ("config", "name", "kind"),
    [
        (TEACHER, "teacher, int8", "teacher"),
        (STUDENT, "4 layers, int8", "student"),
        (
            RecipeConfig(student=StudentConfig(student_layers=0)),
            "static vectors, int8",
            "static vectors",
        ),
        (PRUNED, "4 layers, -33% heads, -50% FFN, int8", "pruned"),
        (
            replace(PRUNED, tokens=TokenConfig(keep_tokens=(0.8, 0.6))),
            "4 layers, -33% heads, -50% FFN, tokens 0.8/0.6, int8",
            "fewer tokens",
        ),
        (
            RecipeConfig(student=StudentConfig(student_layers=4, pool_tokens=4)),
            "4 layers, mean of 4 tokens, int8",
            "pooled tokens",
        ),
    ],
)
def test_a_recipe_has_a_name_and_a_kind(config, name, kind):
    assert (describe(config), kind_of(config)) == (name, kind)
