"""Decide what a search tries next, from what became of what it tried before.

    search space, outcomes -> [order] -> the next recipe or cascade -> run_search

1. int8 of the teacher: what all others are compared with. If it loses too much, nothing follows.
2. Static vectors: a training of minutes that tells the floor. If they pass, nothing is cheaper.
3. Students of fewer and fewer layers, until one loses too much. Depth comes before all else because
   it saves most surely: a layer less saves its share of all work, while a pruned layer still pays
   for its attention and norms (arXiv:2010.13382).
4. The shallowest that passed, pruned, as far as it passes. How far that is is found by bisection,
   because each candidate is a training: one that passes rules out all lighter pruning, one that
   does not rules out all heavier pruning. If it has lost more than half of what may be lost, it has
   little left to lose by pruning, and the student before it is pruned heavily, too.
5. The cheapest so far, with fewer and fewer tokens in its later layers, by bisection, too.
6. Where texts are long, students that pool their tokens, from the shallowest that passed to deeper
   ones; the first that passes is pruned as the one before.
7. Cascades, where they are asked for: a graph that is cheaper than all that pass, in front of the
   best that passes. They come last, as they are made of what was found.

What there was no time for has an outcome, too: it neither passes nor rules anything out. These are
pure functions of plain values; this module knows nothing of models, and runs nothing.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from fastformers.compression.recipe_config import RecipeConfig

# Shares of heads and neurons, as in the paper's Table 3, and two steps beyond it.
PRUNING_SHARES = ((0.25, 0.25), (0.33, 0.5), (0.42, 0.67), (0.5, 0.75))
# Those by which a deeper student gets cheaper than a shallower one that is hardly pruned.
HEAVY_PRUNING = PRUNING_SHARES[2:]
# Share of its tokens that each layer keeps; at 0.6 the fourth layer reads a fifth of them.
TOKEN_SHARES = (0.8, 0.6, 0.4)
# Tokens that are pooled into one, and the mean length from which that is tried: of shorter texts
# fewer than 32 groups are left, and dropping tokens saves as much of them for less.
POOLED_TOKENS, LONG_TEXT_TOKENS = 4, 128
# A cascade pays for its first graph on every row, so that must cost far less than its second.
FIRST_COST_SHARE, MAX_CASCADES = 0.5, 3


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What may be tried.

    Attributes:
        base: Settings that all candidates share: distillation, precision, vocabulary.
        num_layers: Layers of the teacher.
        can_shrink: Whether there are students of the teacher.
        can_be_static: Whether there are static vectors in place of its layers.
        can_drop_tokens: Whether its layers can drop and pool tokens.
        reads_all_tokens: Whether its outputs are made of all tokens of the last layer.
        mean_tokens: Mean length of the training rows.
        max_accuracy_drop: Points of 100 x the metric that may be lost.
        with_cascades: Whether cascades are tried, too.
    """

    base: RecipeConfig
    num_layers: int
    can_shrink: bool
    can_be_static: bool = False
    can_drop_tokens: bool = False
    reads_all_tokens: bool = False
    mean_tokens: float = 0.0
    max_accuracy_drop: float = 1.0
    with_cascades: bool = False


@dataclass(frozen=True, kw_only=True)
class CascadeStep:
    """Two recipes that were tried, one behind the other.

    Attributes:
        first: Recipe whose graph scores every row.
        second: Recipe whose graph scores the rows that the first is unsure of.
        max_drop: Points of 100 x the metric that may be lost to the second.
    """

    first: RecipeConfig
    second: RecipeConfig
    max_drop: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a recipe or cascade.

    Attributes:
        passes: Whether it lost no more than allowed.
        seconds_per_million: Core-seconds of a million rows; infinite if it was not measured.
        drop: Points of 100 x the metric that were lost; infinite likewise.
        is_left_out: Whether there was no time for it, or it could not be made.
    """

    passes: bool
    seconds_per_million: float = float("inf")
    drop: float = float("inf")
    is_left_out: bool = False


LEFT_OUT = Outcome(passes=False, is_left_out=True)
Step = RecipeConfig | CascadeStep
_Steps = Generator[Step, Outcome, None]
_Recipes = Generator[Step, Outcome, RecipeConfig]


def order_steps(space: SearchSpace) -> Generator[Step, Outcome, None]:
    """Yield what to try, one after the other; each is answered by what became of it."""
    return _Order(space).steps()


def expect_steps(space: SearchSpace, outcomes: Sequence[Outcome]) -> list[Step]:
    """What is still to be tried if all passes but static vectors: an upper estimate.

    Args:
        space: What may be tried.
        outcomes: What became of the first of `order_steps`.
    """
    steps, expected = order_steps(space), []
    try:
        step = next(steps)
        for outcome in outcomes:
            step = steps.send(outcome)
        seconds = min((one.seconds_per_million for one in outcomes if one.passes), default=1.0)
        while True:
            expected.append(step)
            seconds *= 0.9
            passes = not (isinstance(step, RecipeConfig) and step.student.is_static)
            step = steps.send(Outcome(passes=passes, seconds_per_million=seconds, drop=0.0))
    except StopIteration:
        return expected


def shallower(base: RecipeConfig, num_layers: int) -> Iterator[RecipeConfig]:
    """Students of fewer and fewer of the teacher's layers: two thirds, half, a third, a sixth."""
    depths = dict.fromkeys(round(num_layers * share) for share in (2 / 3, 1 / 2, 1 / 3, 1 / 6))
    for depth in depths:
        if 1 <= depth < num_layers:
            yield replace(base, student=replace(base.student, student_layers=depth))


@dataclass
class _Order:
    """The order, and what became of the recipes so far."""

    space: SearchSpace
    tried: list[tuple[RecipeConfig, Outcome]] = field(default_factory=list)

    def steps(self) -> _Steps:
        """Yield what to try; each is answered by what became of it."""
        space = self.space
        teacher = yield from self._try(space.base)
        if not teacher.passes:
            return
        if space.can_be_static:
            static = replace(space.base, student=replace(space.base.student, student_layers=0))
            if (yield from self._try(static)).passes:
                return
        shallowest = pruned = space.base
        if space.can_shrink:
            *deeper, shallowest = yield from self._cut_layers()
            pruned = yield from self._prune(shallowest, PRUNING_SHARES)
            if deeper and self._has_little_left(shallowest, pruned):
                heavily = yield from self._prune(deeper[-1], HEAVY_PRUNING)
                pruned = min(pruned, heavily, key=self._seconds)
        if space.can_drop_tokens:
            yield from self._drop_tokens(self._cheapest())
            yield from self._pool(shallowest, pruned)
        if space.with_cascades:
            yield from self._join()

    def _try(self, config: RecipeConfig) -> Generator[Step, Outcome, Outcome]:
        outcome = yield config
        self.tried.append((config, outcome))
        return outcome

    def _cheapest(self) -> RecipeConfig:
        """The cheapest recipe that passes; the teacher does."""
        passed = [(config, outcome) for config, outcome in self.tried if outcome.passes]
        return min(passed, key=lambda one: one[1].seconds_per_million)[0]

    def _outcome(self, config: RecipeConfig) -> Outcome:
        return next(outcome for one, outcome in self.tried if one == config)

    def _seconds(self, config: RecipeConfig) -> float:
        return self._outcome(config).seconds_per_million

    def _has_little_left(self, model: RecipeConfig, pruned: RecipeConfig) -> bool:
        """Whether a model has lost most of what it may, and was not pruned as far as there is."""
        heads, ffn = PRUNING_SHARES[-1]
        is_at_end = (pruned.prune.prune_heads, pruned.prune.prune_ffn) == (heads, ffn)
        return not is_at_end and self._outcome(model).drop > self.space.max_accuracy_drop / 2

    def _cut_layers(self) -> Generator[Step, Outcome, list[RecipeConfig]]:
        """Try students of fewer and fewer layers; returns those that pass, after the teacher."""
        passed = [self.space.base]
        for config in shallower(self.space.base, self.space.num_layers):
            outcome = yield from self._try(config)
            if outcome.passes:
                passed.append(config)
            elif not outcome.is_left_out:
                break
        return passed

    def _prune(self, model: RecipeConfig, shares: Sequence[tuple[float, float]]) -> _Recipes:
        """Prune a model as far as it passes; returns the most pruned that does."""
        return (
            yield from self._bisect(
                model,
                [
                    replace(model, prune=replace(model.prune, prune_heads=heads, prune_ffn=ffn))
                    for heads, ffn in shares
                ],
            )
        )

    def _drop_tokens(self, model: RecipeConfig) -> _Recipes:
        """Drop tokens of a model as far as it passes; returns the one with the fewest."""
        num_layers = _depth(model, self.space)
        num_dropping = num_layers if self.space.reads_all_tokens else num_layers - 1
        if num_dropping < 1:
            return model
        return (
            yield from self._bisect(
                model,
                [
                    replace(model, tokens=replace(model.tokens, keep_tokens=(keep,) * num_dropping))
                    for keep in TOKEN_SHARES
                ],
            )
        )

    def _bisect(self, model: RecipeConfig, stronger: list[RecipeConfig]) -> _Recipes:
        """Find the last of ever stronger recipes that passes; the model itself if none does."""
        best = model
        while stronger:
            middle = len(stronger) // 2
            outcome = yield from self._try(stronger[middle])
            if outcome.is_left_out:
                break
            if outcome.passes:
                best, stronger = stronger[middle], stronger[middle + 1 :]
            else:
                stronger = stronger[:middle]
        return best

    def _pool(
        self, shallowest: RecipeConfig, pruned: RecipeConfig
    ) -> Generator[Step, Outcome, None]:
        """Try students that pool their tokens, where texts are long."""
        space = self.space
        if space.mean_tokens < LONG_TEXT_TOKENS or not space.can_shrink:
            return
        least = max(_depth(shallowest, space), space.base.student.pool_before_layer + 1)
        depths = {_depth(config, space) for config in shallower(space.base, space.num_layers)}
        for depth in sorted(depth for depth in depths if depth >= least):
            student = replace(space.base.student, student_layers=depth, pool_tokens=POOLED_TOKENS)
            pooled = replace(space.base, student=student)
            outcome = yield from self._try(pooled)
            if outcome.passes and pruned.prune.is_wanted:
                yield from self._try(replace(pooled, prune=pruned.prune))
            if outcome.passes or outcome.is_left_out:
                return

    def _join(self) -> _Steps:
        """Try cascades of what is cheaper than all that passes, and the best that passes."""
        passed = [(config, outcome) for config, outcome in self.tried if outcome.passes]
        second, best = min(passed, key=lambda one: (one[1].drop, one[1].seconds_per_million))
        max_drop = self.space.max_accuracy_drop - best.drop
        cheapest = min(outcome.seconds_per_million for _, outcome in passed)
        most = min(cheapest, FIRST_COST_SHARE * best.seconds_per_million)
        firsts = [one for one in self.tried if one[1].seconds_per_million < most]
        firsts.sort(key=lambda one: one[1].seconds_per_million)
        if max_drop > 0:
            for first, _ in firsts[:MAX_CASCADES]:
                yield CascadeStep(first=first, second=second, max_drop=max_drop)


def _depth(config: RecipeConfig, space: SearchSpace) -> int:
    """Layers of a recipe's model."""
    return config.student.student_layers or space.num_layers
