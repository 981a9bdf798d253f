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

Candidates are measured on rows that train nothing, and the cheapest that passes is taken, so its
accuracy there is slightly too high: how good it is, evaluation rows say, which no search sees. This
module knows nothing of what stages do.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.cascade.build import make_cascade
from fastformers.compression.pruning.keep_tokens import reads_all_tokens
from fastformers.compression.quality import QualityGate
from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.search.candidate import (
    RecipeCandidate,
    describe,
    evaluate_candidate,
)
from fastformers.compression.search.durations import Durations, Work, WorkTimer
from fastformers.compression.search.order import (
    LEFT_OUT,
    Outcome,
    SearchSpace,
    Step,
    expect_steps,
    order_steps,
)
from fastformers.compression.stages.plan import plan_stages
from fastformers.data.examples import Examples
from fastformers.errors import InputError, QualityError, StageError
from fastformers.models.architectures import ARCHITECTURES, shrinkable_architecture_of
from fastformers.models.forward import OnProgress, StoppedError
from fastformers.models.loading import task_of
from fastformers.models.losses import DISTILLABLE_TASKS
from fastformers.models.variants.token_reduction import reduction_of

logger = logging.getLogger(__name__)

_LATE_SHARE = 0.1  # of the limit: so much later a training may end that has begun


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A recipe or cascade that was not measured.

    Attributes:
        name: The shape of its model in a few words.
        why: There was no time for it; or it was stopped, and keeps what it has done; or it failed.
        predicted_s: Seconds that it would take.
        reason: Why it failed; empty if it did not.
    """

    name: str
    why: Literal["no time", "stopped", "failed"]
    predicted_s: float
    reason: str = ""


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
        left_out: What was not measured, and why.
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
    measured: dict[Step, RecipeCandidate] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    def run(self) -> None:
        """Try one thing after the other."""
        steps = order_steps(self.space)
        try:
            step = next(steps)
            while True:
                self.outcomes.append(self._try(step))
                step = steps.send(self.outcomes[-1])
        except StopIteration:
            return

    def _try(self, step: Step) -> Outcome:
        """Run a step, if there is time for it and it can be made."""
        is_first = not self.measured
        work, name = self._plan(step), _describe(step)
        predicted_s = self.durations.predict(work)
        if not is_first and self._spent_s + predicted_s > self.limit_s:
            return self._leave_out(LeftOut(name=name, why="no time", predicted_s=predicted_s))
        self._tell(name, predicted_s)
        late_s = self.start_s + (1 + _LATE_SHARE) * self.limit_s
        timer = WorkTimer(self.on_progress, stop_at_s=float("inf") if is_first else late_s)
        begin_s = time.monotonic()
        try:
            candidate = self._measure(step, timer)
        except StoppedError:  # its pace says how long the others will take
            self.durations.learn(work, time.monotonic() - begin_s, timer)
            return self._leave_out(LeftOut(name=name, why="stopped", predicted_s=predicted_s))
        except (QualityError, StageError) as error:
            if is_first:
                raise
            return self._leave_out(
                LeftOut(name=name, why="failed", predicted_s=predicted_s, reason=str(error))
            )
        self.durations.learn(work, time.monotonic() - begin_s, timer)
        self.measured[step] = candidate
        self.on_candidate(candidate)
        return Outcome(
            passes=candidate.passes,
            seconds_per_million=candidate.seconds_per_million,
            drop=candidate.drop,
        )

    def _measure(self, step: Step, timer: WorkTimer) -> RecipeCandidate:
        if isinstance(step, RecipeConfig):
            return evaluate_candidate(
                self.teacher, step, self.gate, transfer=self.transfer, on_progress=timer
            )
        first, second = self.measured[step.first], self.measured[step.second]
        made = make_cascade(
            first.artifact,
            first.qualities[-1].stage,
            second.as_second(),
            self.gate,
            max_drop=step.max_drop,
        )
        return first.followed_by(made, self.gate)

    def _leave_out(self, left: LeftOut) -> Outcome:
        self.left_out.append(left)
        return LEFT_OUT

    def _plan(self, step: Step) -> Work:
        if not isinstance(step, RecipeConfig):
            return Work(num_stages=1)  # graphs that are there are measured together
        return self.durations.plan_work(step, plan_stages(step, self.transfer))

    @property
    def _spent_s(self) -> float:
        return time.monotonic() - self.start_s

    def _tell(self, name: str, predicted_s: float) -> None:
        expected = expect_steps(self.space, self.outcomes)
        later_s = sum(self.durations.predict(self._plan(step)) for step in expected[1:])
        left_s = max(0.0, self.limit_s - self._spent_s)
        self.on_plan(
            SearchProgress(
                name=name,
                num_tried=len(self.measured),
                num_expected=len(expected),
                expected_s=min(predicted_s + later_s, left_s),
            )
        )


def _describe(step: Step) -> str:
    """A step in a few words."""
    if isinstance(step, RecipeConfig):
        return describe(step)
    return f"{describe(step.first)}, then {describe(step.second)}"


def search(
    teacher: ModelArtifact,
    base: RecipeConfig,
    gate: QualityGate,
    *,
    transfer: Examples | None,
    with_cascades: bool = False,
    max_hours: float | None = None,
    on_candidate: Callable[[RecipeCandidate], None] = lambda candidate: None,
    on_plan: Callable[[SearchProgress], None] = lambda progress: None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> SearchResult:
    """Try recipes one after the other, and take the cheapest that passes.

    Args:
        teacher: The artifact that every recipe begins with.
        base: Settings that all candidates share: distillation, precision, vocabulary.
        gate: The rows that choose, and how much may be lost on them.
        transfer: Further examples without labels.
        with_cascades: Whether cascades are tried, too.
        max_hours: Hours that the search may take; None for as many as it needs.
        on_candidate: Called with each candidate as it is measured.
        on_plan: Called before each candidate with how far the search is.
        on_progress: Called with the name of the work, how much is done, and how much there is.

    Raises:
        QualityError: No candidate passes, not even int8 of the teacher.
    """
    durations = Durations(teacher, transfer)
    under_way = _Search(
        teacher=teacher,
        space=_search_space(teacher, base, gate, durations, with_cascades=with_cascades),
        gate=gate,
        transfer=transfer,
        limit_s=float("inf") if max_hours is None else 3600 * max_hours,
        on_candidate=on_candidate,
        on_plan=on_plan,
        on_progress=on_progress,
        durations=durations,
    )
    under_way.run()
    tried = list(under_way.measured.values())
    good = [candidate for candidate in tried if candidate.passes]
    if not good:
        raise QualityError(
            f"{tried[0].qualities[-1].stage} of the teacher itself loses more than "
            f"--max-accuracy-drop {gate.max_accuracy_drop:g}; allow more, or leave --search out "
            f"and give --precision float32{gate.how_to_go_on}"
        )
    chosen = min(good, key=lambda candidate: candidate.seconds_per_million)
    return SearchResult(chosen=chosen, candidates=tried, left_out=under_way.left_out)


def _search_space(
    teacher: ModelArtifact,
    base: RecipeConfig,
    gate: QualityGate,
    durations: Durations,
    *,
    with_cascades: bool,
) -> SearchSpace:
    """What may be tried with a teacher."""
    config, task = teacher.model.config, task_of(teacher.model)
    reason, can_learn = _why_it_stays_whole(teacher), task in DISTILLABLE_TASKS
    if reason is not None:
        others = " and static vectors" if can_learn else ""
        logger.warning("the search tries int8 of the teacher%s alone: %s", others, reason)
    return SearchSpace(
        base=base,
        num_layers=config.num_hidden_layers,
        can_shrink=reason is None,
        can_be_static=can_learn,
        can_drop_tokens=reason is None and _can_drop_tokens(teacher, base),
        reads_all_tokens=reason is None and reads_all_tokens(teacher.model),
        mean_tokens=durations.mean_tokens,
        max_accuracy_drop=gate.max_accuracy_drop,
        with_cascades=with_cascades,
    )


def _can_drop_tokens(teacher: ModelArtifact, base: RecipeConfig) -> bool:
    """Whether the layers of its students can drop tokens, and learn to."""
    architecture = ARCHITECTURES[teacher.model.config.model_type]
    return architecture.layer_stack is not None and not base.distill.attention_weight


def _why_it_stays_whole(teacher: ModelArtifact) -> str | None:
    """Why there is no student of a teacher and no pruning; None where there is."""
    task = task_of(teacher.model)
    if task not in DISTILLABLE_TASKS:
        return f"its task is {task}, and students are for {', '.join(map(str, DISTILLABLE_TASKS))}"
    try:
        shrinkable_architecture_of(teacher.model.config)
    except InputError as error:
        return str(error)
    if reduction_of(teacher.model.config).reduces:
        return "it drops or pools tokens already; give the model from before that"
    return None
