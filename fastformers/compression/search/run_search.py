"""Run a search: the cheapest bundle that is still good enough, within the time there is.

    teacher + allowed drop -> [run_search] -> candidates on a frontier -> the cheapest that passes

What to try next is decided in `order.py`, and how long it will take is predicted in `durations.py`;
this module runs it. Candidates share their stages through the working directory, so a search that
was interrupted, or is run again with another allowed drop, trains nothing twice.

With a limit of hours, a candidate that would end after it is left out, and said so; cheaper ones
may still fit. One that turns out to take longer is stopped once its own speed says that it would
end a tenth of the limit too late: its training keeps a checkpoint, from which the next search goes
on. int8 of the teacher is measured however long it takes, so that there is something to compare
with. A search that is run again has the whole limit again.

Candidates are measured on the evaluation file and the cheapest that passes is taken, so its
accuracy there is slightly too high; keep a third file for the number that you will quote. This
module knows nothing of what stages do.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.quality import QualityGate
from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.search.candidate import (
    RecipeCandidate,
    describe,
    evaluate_candidate,
)
from fastformers.compression.search.durations import Durations, WorkTimer
from fastformers.compression.search.order import (
    LEFT_OUT,
    Outcome,
    SearchSpace,
    expect_recipes,
    order_recipes,
)
from fastformers.compression.stages.plan import plan_stages
from fastformers.data.examples import Examples
from fastformers.errors import InputError, QualityError
from fastformers.models.architectures import shrinkable_architecture_of
from fastformers.models.forward import OnProgress, StoppedError
from fastformers.models.loading import task_of
from fastformers.models.losses import DISTILLABLE_TASKS

logger = logging.getLogger(__name__)

_LATE_SHARE = 0.1  # of the limit: so much later a training may end that has begun


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A recipe for which there was no time.

    Attributes:
        name: The shape of its model in a few words.
        predicted_s: Seconds that it would take.
        was_begun: Whether it was begun, and keeps what it has done.
    """

    name: str
    predicted_s: float
    was_begun: bool = False


@dataclass(frozen=True, kw_only=True)
class SearchProgress:
    """How far a search is.

    Attributes:
        name: The recipe that is run next.
        num_tried: Number of candidates measured.
        num_expected: Number of recipes still to come, this one included; at most.
        expected_s: Seconds that these will take; at most.
    """

    name: str
    num_tried: int
    num_expected: int
    expected_s: float


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        chosen: The cheapest candidate that passes.
        candidates: All of them, in the order tried.
        left_out: Recipes for which there was no time.
    """

    chosen: RecipeCandidate
    candidates: list[RecipeCandidate]
    left_out: list[LeftOut]


@dataclass(kw_only=True)
class _Search:
    """A search that is under way."""

    teacher: ModelArtifact
    space: SearchSpace
    gate: QualityGate
    transfer: Examples | None
    limit_s: float
    on_candidate: Callable[[RecipeCandidate], None]
    on_plan: Callable[[SearchProgress], None]
    on_progress: OnProgress
    durations: Durations
    start_s: float = field(default_factory=time.monotonic)
    outcomes: list[Outcome] = field(default_factory=list)
    candidates: list[RecipeCandidate] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def run(self) -> None:
        """Try one recipe after the other."""
        recipes = order_recipes(self.space)
        try:
            config = next(recipes)
            while True:
                self.outcomes.append(self._try(config))
                config = recipes.send(self.outcomes[-1])
        except StopIteration:
            return

    def _try(self, config: RecipeConfig) -> Outcome:
        """Run a recipe, if there is time for it."""
        is_first = not self.candidates
        work = self.durations.plan_work(config, plan_stages(config, self.transfer))
        predicted_s = self.durations.predict(work)
        if not is_first and self._spent_s + predicted_s > self.limit_s:
            self.left_out.append(LeftOut(name=describe(config), predicted_s=predicted_s))
            return LEFT_OUT
        self._tell(config, predicted_s)
        late_s = self.start_s + (1 + _LATE_SHARE) * self.limit_s
        timer = WorkTimer(self.on_progress, stop_at_s=float("inf") if is_first else late_s)
        begin_s = time.monotonic()
        try:
            candidate = evaluate_candidate(
                self.teacher, config, self.gate, transfer=self.transfer, on_progress=timer
            )
        except StoppedError:
            left = LeftOut(name=describe(config), predicted_s=predicted_s, was_begun=True)
            self.left_out.append(left)
            return LEFT_OUT
        self.durations.learn(work, time.monotonic() - begin_s, timer)
        self.candidates.append(candidate)
        self.on_candidate(candidate)
        return Outcome(passes=candidate.passes, seconds_per_million=candidate.seconds_per_million)

    @property
    def _spent_s(self) -> float:
        return time.monotonic() - self.start_s

    def _tell(self, config: RecipeConfig, predicted_s: float) -> None:
        expected = expect_recipes(self.space, self.outcomes)
        works = [
            self.durations.plan_work(one, plan_stages(one, self.transfer)) for one in expected[1:]
        ]
        expected_s = predicted_s + sum(map(self.durations.predict, works))
        self.on_plan(
            SearchProgress(
                name=describe(config),
                num_tried=len(self.candidates),
                num_expected=len(expected),
                expected_s=min(expected_s, max(0.0, self.limit_s - self._spent_s)),
            )
        )


def search(
    teacher: ModelArtifact,
    base: RecipeConfig,
    gate: QualityGate,
    *,
    transfer: Examples | None,
    max_hours: float | None = None,
    on_candidate: Callable[[RecipeCandidate], None] = lambda candidate: None,
    on_plan: Callable[[SearchProgress], None] = lambda progress: None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> SearchResult:
    """Try recipes one after the other, and take the cheapest that passes.

    Args:
        teacher: The artifact that every recipe begins with.
        base: Settings that all candidates share: distillation, precision, vocabulary.
        gate: Measure of quality, and how much of it may be lost.
        transfer: Further examples without labels.
        max_hours: Hours that the search may take; None for as many as it needs.
        on_candidate: Called with each candidate as it is measured.
        on_plan: Called before each candidate with how far the search is.
        on_progress: Called with the name of the work, how much is done, and how much there is.

    Raises:
        QualityError: No candidate passes, not even int8 of the teacher.
    """
    reason = _why_it_stays_whole(teacher)
    if reason is not None:
        logger.warning("the search tries int8 of the teacher alone: %s", reason)
    under_way = _Search(
        teacher=teacher,
        space=SearchSpace(
            base=base,
            num_layers=teacher.model.config.num_hidden_layers,
            can_shrink=reason is None,
        ),
        gate=gate,
        transfer=transfer,
        limit_s=float("inf") if max_hours is None else 3600 * max_hours,
        on_candidate=on_candidate,
        on_plan=on_plan,
        on_progress=on_progress,
        durations=Durations(teacher, transfer),
    )
    under_way.run()
    tried = under_way.candidates
    good = [candidate for candidate in tried if candidate.passes]
    if not good:
        raise QualityError(
            f"{tried[0].qualities[-1].stage} of the teacher itself loses more than "
            f"--max-accuracy-drop {gate.max_accuracy_drop:g}; allow more, or leave --search out "
            f"and give --precision float32{gate.how_to_go_on}"
        )
    chosen = min(good, key=lambda candidate: candidate.seconds_per_million)
    return SearchResult(chosen=chosen, candidates=tried, left_out=under_way.left_out)


def _why_it_stays_whole(teacher: ModelArtifact) -> str | None:
    """Why there is no student of a teacher and no pruning; None where there is."""
    task = task_of(teacher.model)
    if task not in DISTILLABLE_TASKS:
        return f"its task is {task}, and students are for {', '.join(map(str, DISTILLABLE_TASKS))}"
    try:
        shrinkable_architecture_of(teacher.model.config)
    except InputError as error:
        return str(error)
    return None
