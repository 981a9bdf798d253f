"""A bundle says of itself what is so."""

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from fastformers.compression.assemble import choices_of
from fastformers.compression.recipe_config import RecipeConfig, StudentConfig

CHOICES = ("the recipe", "the threshold", "what is in int8")


@pytest.mark.parametrize(
    ("layers", "cascade", "chosen"),
    [
        (2, None, ["the recipe", "what is in int8"]),
        (0, None, ["the recipe"]),
        (0, "second", [*CHOICES]),
        (2, "second", [*CHOICES]),
    ],
)
def test_rows_chose_what_the_bundle_has_not_what_a_search_tried(layers, cascade, chosen):
    recipe = RecipeConfig(student=StudentConfig(student_layers=layers))
    selected = SimpleNamespace(config=recipe, cascade=cascade)
    assert choices_of(SimpleNamespace(choices=CHOICES), selected) == chosen
