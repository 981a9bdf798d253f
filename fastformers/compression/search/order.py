"""Decide which recipe a search tries next, from what became of those before.

    search space, outcomes -> [order] -> the next recipe -> run_search

The order follows the paper's steps (arXiv:2010.13382): int8 of the teacher itself, then students of
fewer and fewer layers until one loses too much, then the shallowest that passed, pruned. Depth
comes first because it saves most surely: a layer less saves its share of all work, while a pruned
layer still pays for its attention and norms. How far pruning may go is found by bisection, because
each candidate is a training: one that passes rules out all lighter pruning, one that does not pass
rules out all heavier pruning.

A recipe for which there was no time has an outcome, too: it neither passes nor rules anything out.
These are pure functions of plain values; this module knows nothing of models, and runs nothing.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from fastformers.compression.recipe_config import RecipeConfig

# Shares of heads and neurons, as in the paper's Table 3, and two steps beyond it.
PRUNING_SHARES = ((0.25, 0.25), (0.33, 0.5), (0.42, 0.67), (0.5, 0.75))


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What may be tried.

    Attributes:
        base: Settings that all candidates share: distillation, precision, vocabulary.
        num_layers: Layers of the teacher.
        can_shrink: Whether there are students of the teacher.
    """

    base: RecipeConfig
    num_layers: int
    can_shrink: bool


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a recipe.

    Attributes:
        passes: Whether it lost no more than allowed.
        seconds_per_million: Core-seconds of a million rows; infinite if it was not measured.
        is_left_out: Whether there was no time for it.
    """

    passes: bool
    seconds_per_million: float = float("inf")
    is_left_out: bool = False


LEFT_OUT = Outcome(passes=False, is_left_out=True)
_Recipes = Generator[RecipeConfig, Outcome, RecipeConfig]


def order_recipes(space: SearchSpace) -> Generator[RecipeConfig, Outcome, None]:
    """Yield the recipes to try, one after the other; each is answered by what became of it."""
    teacher = yield space.base
    if not teacher.passes or not space.can_shrink:
        return
    shallowest = yield from _cut_layers(space)
    yield from _prune(shallowest)


def expect_recipes(space: SearchSpace, outcomes: Sequence[Outcome]) -> list[RecipeConfig]:
    """The recipes still to be tried if all of them pass: most of them, and so an upper estimate.

    Args:
        space: What may be tried.
        outcomes: What became of the first recipes of `order_recipes`.
    """
    recipes, expected = order_recipes(space), []
    try:
        config = next(recipes)
        for outcome in outcomes:
            config = recipes.send(outcome)
        cheapest = min((one.seconds_per_million for one in outcomes if one.passes), default=1.0)
        while True:
            expected.append(config)
            cheapest *= 0.9
            config = recipes.send(Outcome(passes=True, seconds_per_million=cheapest))
    except StopIteration:
        return expected


def shallower(base: RecipeConfig, num_layers: int) -> Iterator[RecipeConfig]:
    """Students of fewer and fewer of the teacher's layers: two thirds, half, a third, a sixth."""
    depths = dict.fromkeys(round(num_layers * share) for share in (2 / 3, 1 / 2, 1 / 3, 1 / 6))
    for depth in depths:
        if 1 <= depth < num_layers:
            yield replace(base, student=replace(base.student, student_layers=depth))


def _cut_layers(space: SearchSpace) -> _Recipes:
    """Try students of fewer and fewer layers; returns the shallowest that passes."""
    shallowest = space.base
    for config in shallower(space.base, space.num_layers):
        outcome = yield config
        if outcome.passes:
            shallowest = config
        elif not outcome.is_left_out:
            break
    return shallowest


def _prune(model: RecipeConfig) -> _Recipes:
    """Find by bisection how far a model may be pruned; returns the most pruned that passes."""
    best = model
    shares = list(PRUNING_SHARES)
    while shares:
        middle = len(shares) // 2
        heads, ffn = shares[middle]
        config = replace(model, prune=replace(model.prune, prune_heads=heads, prune_ffn=ffn))
        outcome = yield config
        if outcome.is_left_out:
            break
        if outcome.passes:
            best, shares = config, shares[middle + 1 :]
        else:
            shares = shares[:middle]
    return best
