"""Compress a teacher into a bundle: the offline half from end to end.

    training rows -> train, select -> [compress: recipe or search] -> one candidate
    candidate, evaluation rows -> [compress] -> its quality -> assemble -> bundle

Training rows make models, selection rows choose among them, and evaluation rows say how good the
one is that was chosen: a search sees of these its teacher's quality alone, and one recipe chooses
nothing by them. This module knows nothing of how stages work.
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from transformers import PreTrainedModel

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.assemble import assemble, origin_of_transfer, provenance
from fastformers.compression.cascade.build import SecondGraph, check_second, make_cascade
from fastformers.compression.compress_config import CompressConfig
from fastformers.compression.own_pipeline import check_own_pipeline
from fastformers.compression.quality import QualityGate, warn_if_known
from fastformers.compression.recipe import run_recipe
from fastformers.compression.recipe_checks import check_recipe
from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.search.candidate import (
    RecipeCandidate,
    describe,
    evaluate_candidate,
    judge_again,
)
from fastformers.compression.search.run_search import (
    LeftOut,
    SearchProgress,
    SearchResult,
    search,
)
from fastformers.compression.stages.plan import plan_stages
from fastformers.compression.transfer_curve import CurvePoint, measure_curve
from fastformers.data.examples import Examples
from fastformers.data.splitting import SplitRows
from fastformers.data.targets import settle_labels
from fastformers.data.training_files import TrainingFiles
from fastformers.digest import digest_of, library_versions
from fastformers.errors import InputError
from fastformers.files.file_lock import alone_in
from fastformers.files.hub import find_model
from fastformers.inference.bundle import Bundle
from fastformers.inference.cascade.margins import CASCADE_TASKS
from fastformers.inference.description.label_names import check_label_names
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.tasks import EMBEDDING
from fastformers.models.forward import OnProgress
from fastformers.models.loading import (
    default_max_length,
    label_names,
    load_model,
    load_tokenizer,
    task_of,
)
from fastformers.models.model_files import digest_checkpoint


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """Result of `compress`.

    Attributes:
        bundle: The bundle.
        chosen: The recipe that made it, measured on the evaluation rows.
        selected: The same; where a search chose it, measured on the rows that choose.
        candidates: All recipes that were tried, measured as `selected` is.
        left_out: What a search did not measure, and why.
        curve: Quality of the recipe by number of texts without labels, if it was asked for.
        split: Rows that trained and rows that chose.
    """

    bundle: Bundle
    chosen: RecipeCandidate
    selected: RecipeCandidate
    candidates: Sequence[RecipeCandidate]
    split: SplitRows
    left_out: Sequence[LeftOut] = ()
    curve: Sequence[CurvePoint] = ()


def compress(
    config: CompressConfig,
    files: TrainingFiles | None = None,
    *,
    on_labels: Callable[[str], None] = lambda meaning: None,
    on_stage: Callable[[StageQuality], None] = lambda quality: None,
    on_candidate: Callable[[RecipeCandidate], None] = lambda candidate: None,
    on_plan: Callable[[SearchProgress], None] = lambda progress: None,
    on_point: Callable[[CurvePoint], None] = lambda point: None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Compressed:
    """Run the recipe, or search for one, and write the bundle.

    Called again after an interruption, it resumes from what is in the working directory.

    Args:
        config: Teacher, files, recipe and allowed loss.
        files: What `CompressConfig.load_files` returned; None to call it here.
        on_labels: Called before any work with what the labels were taken for.
        on_stage: Called with the quality on evaluation rows after each stage: of a recipe as it is
            measured, of a search at its end for what it chose.
        on_candidate: Called with each candidate of a search.
        on_plan: Called before each of them with how far the search is.
        on_point: Called with each point of the curve over texts without labels.
        on_progress: Called with the name of the work, how much is done, and how much there is.

    Raises:
        InputError: A path, column, label or model cannot be used.
        StageError: A stage's pre- or postcondition does not hold.
        QualityError: More accuracy was lost than allowed; no bundle is written.
        ClaimedError: Another run makes the same output.
    """
    found = find_model(config.teacher)
    config = replace(config, teacher=found.path)
    files = files or config.load_files()
    model = load_model(config.teacher)
    if config.label_names:
        check_label_names(config.label_names, label_names(model), flag="--label-names")
    split, evaluation, meaning = _settle(config, files, model)
    on_labels(meaning)
    teacher = _open_teacher(config, model, split)
    check_recipe(config.recipe, teacher, config.teacher)
    second = _check_cascade(config, teacher)
    with _own_work(config):
        evaluated, choosing = _open_gates(config, teacher, split, evaluation, on_progress)
        run = _Run(
            config=config,
            teacher=teacher,
            transfer=None if files.transfer is None else files.transfer.examples,
            evaluated=evaluated,
            on_stage=on_stage,
            on_progress=on_progress,
        )
        left_out: Sequence[LeftOut] = ()
        curve: Sequence[CurvePoint] = ()
        if config.search:
            assert choosing is not None
            result = run.search(choosing, on_candidate=on_candidate, on_plan=on_plan)
            selected, candidates, left_out = result.chosen, result.candidates, result.left_out
            chosen = run.judge(selected)
        else:
            chosen = selected = run.follow(choosing, second)
            for quality in (chosen.quality, *(quality for _, quality in chosen.further)):
                evaluated.check(quality)
            candidates, curve = [chosen], run.measure_curve(chosen, on_point)
        origin = provenance(config, selected, found, split)
        bundle = assemble(config, chosen, origin | origin_of_transfer(files.transfer, curve))
        if config.work is None:
            shutil.rmtree(config.work_directory)
        return Compressed(
            bundle=bundle,
            chosen=chosen,
            selected=selected,
            candidates=candidates,
            left_out=left_out,
            curve=curve,
            split=split,
        )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One recipe, or a search for one, from a teacher."""

    config: CompressConfig
    teacher: ModelArtifact
    transfer: Examples | None
    evaluated: QualityGate
    on_stage: Callable[[StageQuality], None]
    on_progress: OnProgress

    def search(
        self,
        choosing: QualityGate,
        *,
        on_candidate: Callable[[RecipeCandidate], None],
        on_plan: Callable[[SearchProgress], None],
    ) -> SearchResult:
        """Find the cheapest recipe that passes on the rows that choose."""
        return search(
            self.teacher,
            self.config.recipe,
            choosing,
            transfer=self.transfer,
            with_cascades=self.config.cascade.cascade,
            max_hours=self.config.max_hours,
            on_candidate=on_candidate,
            on_plan=on_plan,
            on_progress=self.on_progress,
        )

    def judge(self, selected: RecipeCandidate) -> RecipeCandidate:
        """Measure what a search chose on the evaluation rows."""
        return judge_again(
            selected,
            self.teacher,
            self.evaluated,
            transfer=self.transfer,
            on_stage=self.on_stage,
            on_progress=self.on_progress,
        )

    def follow(self, choosing: QualityGate | None, second: SecondGraph | None) -> RecipeCandidate:
        """Run the recipe, with a second graph behind it if rows choose which go on."""
        chosen = evaluate_candidate(
            self.teacher,
            self.config.recipe,
            self.evaluated,
            transfer=self.transfer,
            on_stage=self.on_stage,
            on_progress=self.on_progress,
        )
        if choosing is None:
            return chosen
        drop = self.config.cascade.cascade_drop
        made = make_cascade(
            chosen.artifact,
            chosen.qualities[-1].stage,
            second or self._whole_teacher(),
            choosing,
            max_drop=drop,
        )
        chosen = chosen.followed_by(made, self.evaluated)
        assert chosen.cascade is not None
        for quality in (chosen.cascade.cascade.second_quality, chosen.quality):
            assert quality is not None
            self.on_stage(quality)
        return chosen

    def _whole_teacher(self) -> SecondGraph:
        """The teacher's own graph, to stand behind a student's."""
        recipe = RecipeConfig(trim=self.config.recipe.trim, quantize=self.config.recipe.quantize)
        artifact, qualities = run_recipe(
            self.teacher,
            plan_stages(recipe, None),
            self.evaluated,
            on_progress=self.on_progress,
        )
        return SecondGraph.of_artifact(artifact, qualities[-1], describe(recipe))

    def measure_curve(
        self, chosen: RecipeCandidate, on_point: Callable[[CurvePoint], None]
    ) -> Sequence[CurvePoint]:
        """What texts without labels bring, if it is asked for."""
        if not self.config.transfer_curve or self.transfer is None:
            return ()
        return measure_curve(
            self.teacher,
            self.config.recipe,
            self.evaluated,
            self.transfer,
            whole=(chosen.artifact, chosen.qualities[-1]),
            on_point=on_point,
            on_progress=self.on_progress,
        )


def _own_work(config: CompressConfig) -> AbstractContextManager[None]:
    """Keep another run of the same output away, which would use, and remove, the same directory."""
    if config.work is not None:
        return nullcontext()  # several runs may share it
    return alone_in(config.work_directory, config.output)


def _settle(
    config: CompressConfig, files: TrainingFiles, model: PreTrainedModel
) -> tuple[SplitRows, Examples, str]:
    """The rows that train and choose, and those to evaluate on, with the names of the classes.

    Returns:
        These, and what the labels were taken for.
    """
    assert files.evaluation is not None
    split = files.split
    selected = [] if split.select is None else [(split.select_path, split.select)]
    settled = settle_labels(
        [(config.train, split.train), (config.eval, files.evaluation), *selected],
        task_of(model),
        label_names(model),
        new_names=config.label_names,
    )
    train, evaluation, *select = settled.files
    return (
        replace(split, train=train, select=next(iter(select), None)),
        evaluation,
        settled.meaning,
    )


def _open_teacher(
    config: CompressConfig, model: PreTrainedModel, split: SplitRows
) -> ModelArtifact:
    tokenizer_json, tokenizer_limit = load_tokenizer(config.teacher)
    train, select = split.train, split.select
    if task_of(model) == EMBEDDING and train.text_pairs is not None:
        raise InputError(f"{config.teacher} embeds single texts; leave the pair column out")
    max_length = config.max_length or default_max_length(model, tokenizer_limit)
    decisive = [
        digest_checkpoint(config.teacher),
        train.digest,
        "" if select is None else select.digest,
    ]
    artifact = ModelArtifact(
        key=digest_of(decisive, max_length, library_versions()),
        model=model,
        tokenizer_json=tokenizer_json,
        max_length=max_length,
        text_pairs=train.text_pairs is not None,
        train=train,
        train_path=config.train,
        select=select,
        work=config.work_directory,
    )
    check_own_pipeline(config.teacher, artifact)
    return artifact


def _open_gates(
    config: CompressConfig,
    teacher: ModelArtifact,
    split: SplitRows,
    evaluation: Examples,
    on_progress: OnProgress,
) -> tuple[QualityGate, QualityGate | None]:
    """The gates of the rows that evaluate, and of those that choose; None where nothing is chosen.

    Only a search and a cascade choose by a gate; a stage chooses by the rows of its artifact.
    """
    open_gate = partial(
        QualityGate, teacher, max_accuracy_drop=config.allowed_drop, on_progress=on_progress
    )
    evaluated = open_gate(evaluation, config.eval)
    if not (config.search or config.cascade.cascade):
        return evaluated, None
    assert split.select is not None
    choosing = open_gate(split.select, split.select_path)
    warn_if_known(choosing.teacher, evaluated.teacher, split.select_path)
    return evaluated, choosing


def _check_cascade(config: CompressConfig, teacher: ModelArtifact) -> SecondGraph | None:
    """Refuse a cascade that cannot be; returns the graph of the bundle that is to be the second."""
    task = task_of(teacher.model)
    if config.cascade.cascade and task not in CASCADE_TASKS:
        raise InputError(
            f"{config.teacher}: its task is {task}; a cascade is for "
            f"{' and '.join(map(str, CASCADE_TASKS))}: leave --cascade out"
        )
    if config.cascade.cascade_with is None:
        return None
    labels = config.label_names or label_names(teacher.model)
    bundle = check_second(config.cascade.cascade_with, teacher, labels)
    return SecondGraph.of_bundle(bundle, teacher)
