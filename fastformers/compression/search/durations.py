"""Predict how long a recipe will take, from what took how long in this very search.

    teacher, stages that are not kept, trainings measured -> [durations] -> seconds -> run_search

A training takes as long as its tokens: rows x tokens x epochs x the part of the teacher that is
trained. The seconds of one of these are those of the last training of this search; before the
first, three times the teacher's own pass, because the gradients of weights and of states each take
as long as the outputs. What else a recipe does, exports, evaluations and timing, takes as long as
it took the slowest of this search so far. A stage that is kept takes no time, and one that was
interrupted what its last checkpoint leaves to do.

This module knows nothing of what a stage does, but by its name which ones train.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.recipe import Stage, is_kept, stage_directories
from fastformers.compression.recipe_config import RecipeConfig
from fastformers.data.examples import Examples
from fastformers.models.forward import OnProgress, StoppedError, mixed_precision, predict_logits
from fastformers.models.teacher_outputs import has_outputs

_TIMED_ROWS = 64
# A step computes outputs, and the gradients of states and of weights.
_PASSES_OF_A_STEP = 3.0
_TRAINING, _TEACHER_PASS = "distill", "teacher"  # as they are called in the progress
# Seconds after which a rate is taken to be that of the whole work.
_SURE_AFTER_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What there is to do for a recipe.

    Attributes:
        trained_tokens: Tokens of all epochs, as many as the whole teacher would take as long for.
        read_tokens: Tokens that the teacher reads for its students, for all stages together.
        num_stages: Number of stages that are not kept.
    """

    trained_tokens: float = 0.0
    read_tokens: float = 0.0
    num_stages: int = 0


class WorkTimer:
    """Passes progress on, times each kind of work by it, and stops what would end too late."""

    def __init__(
        self,
        on_progress: OnProgress,
        *,
        stop_at_s: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with no work.

        Args:
            on_progress: Called with every report.
            stop_at_s: Time of the clock after which no work may end.
            clock: Gives the time in seconds.
        """
        self._on_progress = on_progress
        self._stop_at_s = stop_at_s
        self._clock = clock
        self._seconds: dict[str, float] = {}  # of the work before the present one
        self._what = ""
        self._first_done = self._done = self._total = 0
        self._first_s = self._last_s = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take a report: the name of the work, how much is done, and how much there is.

        Raises:
            StoppedError: The work would end after `stop_at_s`.
        """
        now_s = self._clock()
        if what != self._what or done < self._done:
            self._close()
            self._what, self._first_done, self._first_s = what, done, now_s
        self._done, self._total, self._last_s = done, total, now_s
        self._on_progress(what, done, total)
        is_sure = now_s - self._first_s >= _SURE_AFTER_S
        ends_s = now_s + (total - done) * self._seconds_of_a_part() if is_sure else now_s
        if ends_s > self._stop_at_s:
            raise StoppedError(what)

    def seconds_of(self, what: str) -> float:
        """Seconds of all work of a name; what was taken up half way counts as a whole."""
        self._close()
        return self._seconds.get(what, 0.0)

    def _close(self) -> None:
        seconds = self._total * self._seconds_of_a_part()
        self._seconds[self._what] = self._seconds.get(self._what, 0.0) + seconds
        self._what, self._total, self._done = "", 0, 0

    def _seconds_of_a_part(self) -> float:
        num_parts = self._done - self._first_done
        return (self._last_s - self._first_s) / num_parts if num_parts else 0.0


class Durations:
    """Predicts the seconds of a recipe, and learns from those that were run.

    Attributes:
        mean_tokens: Mean length of the training rows.
    """

    def __init__(self, teacher: ModelArtifact, transfer: Examples | None) -> None:
        """Count the tokens of the training rows; nothing is timed before it is asked for.

        Args:
            teacher: The artifact that all recipes begin with.
            transfer: Further examples without labels.
        """
        self._teacher = teacher
        examples = teacher.train if transfer is None else teacher.train.joined(transfer)
        self._answers = teacher.answers(examples)
        lengths_N = teacher.tokenize(examples).lengths_N
        self._num_tokens, self.mean_tokens = int(lengths_N.sum()), float(lengths_N.mean())
        self._read_s: float | None = None
        self._trained_s: float | None = None
        self._other_s = 0.0

    def plan_work(self, config: RecipeConfig, stages: Sequence[Stage]) -> Work:
        """What there is to do for a recipe, whose kept stages cost nothing."""
        trained = 0.0
        num_stages = 0
        num_layers = self._teacher.model.config.num_hidden_layers
        for stage, directory in zip(stages, stage_directories(self._teacher, stages), strict=True):
            if is_kept(directory):
                continue
            num_stages += 1
            epochs = _epochs(config, stage.name)
            size = _size(config, stage.name, num_layers=num_layers)
            num_trainings = config.prune.prune_rounds if stage.name == "prune" else 1
            left = 1 - _share_done(directory) / num_trainings
            trained += epochs * size * left * self._num_tokens
        read = self._num_tokens if trained and not has_outputs(self._answers) else 0
        return Work(trained_tokens=trained, read_tokens=read, num_stages=num_stages)

    def predict(self, work: Work) -> float:
        """Seconds that the work will take; the teacher is timed once, if that is needed."""
        if work.num_stages == 0:
            return 0.0
        seconds = self._other_s
        if work.trained_tokens:
            self._read_s = self._read_s or _time_teacher(self._teacher)
            trained_s = self._trained_s or _PASSES_OF_A_STEP * self._read_s
            seconds += work.read_tokens * self._read_s + work.trained_tokens * trained_s
        return seconds

    def learn(self, work: Work, seconds: float, timer: WorkTimer) -> None:
        """Learn from work that was done.

        Args:
            work: What there was to do.
            seconds: What it took.
            timer: Timer of its progress.
        """
        training_s, reading_s = timer.seconds_of(_TRAINING), timer.seconds_of(_TEACHER_PASS)
        if work.trained_tokens and training_s:
            self._trained_s = training_s / work.trained_tokens
        if work.read_tokens and reading_s:
            self._read_s = reading_s / work.read_tokens
        if work.num_stages:
            self._other_s = max(self._other_s, seconds - training_s - reading_s)


def _epochs(config: RecipeConfig, stage: str) -> float:
    """Epochs that a stage trains for; 0 if it does not."""
    return {
        "distill": config.distill.training.epochs,
        "prune": config.prune.prune_epochs * config.prune.prune_rounds,
        "keep_tokens": config.tokens.token_epochs,
    }.get(stage, 0.0)


def _size(config: RecipeConfig, stage: str, *, num_layers: int) -> float:
    """How large the model is that a stage trains, as a share of the teacher of so many layers.

    Static vectors train in next to no time beside the teacher's pass, and pooled tokens are not
    taken into account: the first training of either is over sooner than is predicted.
    """
    prune, is_pruned = config.prune, stage != "distill"
    depth = _depth(config, num_layers)
    return depth * (1 - is_pruned * (prune.prune_heads + prune.prune_ffn) / 2)


def _depth(config: RecipeConfig, num_layers: int) -> float:
    """Share of the teacher's layers that the student has."""
    layers = config.student.student_layers
    return 1.0 if layers is None else layers / num_layers


def _share_done(directory: Path) -> float:
    """Share of the interrupted training of a stage that its last checkpoint holds."""
    shares = [0.0]
    for path in directory.glob("**/trainer_state.json"):
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # half written when it was killed, or another run's
            continue
        shares.append(state["global_step"] / max(1, state["max_steps"]))
    return max(shares)


def _time_teacher(teacher: ModelArtifact) -> float:
    """Seconds of the teacher for a token, on some training rows."""
    rows = teacher.tokenize(teacher.train.sample(_TIMED_ROWS))
    with mixed_precision():
        predict_logits(teacher.model, rows)  # warms up
        start = time.perf_counter()
        predict_logits(teacher.model, rows)
    return (time.perf_counter() - start) / int(rows.lengths_N.sum())
