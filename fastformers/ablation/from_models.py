"""Build the paper's Table 3 for the user's own model, data and machine.

    teacher, student, bundles + labeled texts -> [from_models] -> steps -> measure

Each step adds one optimization to the one before: no padding, a distilled student, an int8 graph
tuned for the CPU, one instance for each core, pruning. This module knows nothing of how students
and bundles are made.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import PreTrainedModel

from fastformers.ablation.measure import Ablation
from fastformers.ablation.steps import INT8_GRAPH, GraphModel, TorchModel, build_steps
from fastformers.ablation.texts import LabeledTexts, TextsConfig, TimedRows, time_tokenization
from fastformers.data.examples import Examples
from fastformers.data.targets import encode_targets
from fastformers.errors import InputError
from fastformers.files.hub import find_model
from fastformers.inference.bundle import Bundle, open_bundle
from fastformers.inference.description.label_names import TEACHER_LABELS
from fastformers.inference.manifest import TOKENIZER_FILE
from fastformers.inference.tasks import TEXT_CLASSIFICATION
from fastformers.models.forward import OnProgress, predict_logits
from fastformers.models.loading import (
    class_names,
    default_max_length,
    load_model,
    load_tokenizer,
    max_positions,
    task_of,
)

# What a stage that the bundle before lacks adds to it.
_TITLES = {"prune": "pruning", "keep_tokens": "token pruning"}


def build_ablation(
    config: TextsConfig,
    texts: LabeledTexts,
    *,
    teacher_path: Path,
    student_path: Path | None,
    bundle_paths: Sequence[Path],
    cpus_of_instance: Sequence[tuple[int, ...]],
    on_progress: OnProgress = lambda what, done, total: None,
) -> Ablation:
    """Load models and build the steps that they allow.

    Args:
        config: Settings of the texts; a `max_length` of None is that of the bundles, or without
            bundles the teacher's.
        texts: What `load_texts` returned for that config.
        teacher_path: Directory of the fine-tuned Hugging Face classifier, or org/name of the hub.
        student_path: Directory of the distilled classifier, or None.
        bundle_paths: Bundles: that of the unpruned student, then one for each further step.
        cpus_of_instance: Logical CPUs of each one-threaded instance, one instance for each core.
        on_progress: Called while teacher and student predict, outside the clock, with the name of
            the work, rows done and rows in all.

    Raises:
        InputError: A path, column or label cannot be used, or two models do not belong together.
        BundleError: A bundle is missing or damaged.
    """
    examples, eval_path = texts
    bundles = [open_bundle(path) for path in bundle_paths]
    found = find_model(teacher_path)
    teacher_path = found.path
    teacher_model = load_model(teacher_path)
    if task_of(teacher_model) != TEXT_CLASSIFICATION:
        raise InputError(
            f"--teacher {teacher_path}: its task is {task_of(teacher_model)}; ablate measures "
            f"{TEXT_CLASSIFICATION}, compress and bench measure any task"
        )
    tokenizer_json, tokenizer_limit = load_tokenizer(teacher_path)
    max_length = _choose_max_length(config.max_length, tokenizer_limit, teacher_model, bundles)
    labels = class_names(teacher_model.config)
    labels_N = encode_targets(examples, TEXT_CLASSIFICATION, labels, eval_path)
    _check_bundles(bundles, labels, text_pairs=examples.text_pairs is not None)
    tokenize = _timed_tokenization(examples, max_length)

    def read_torch_model(model: PreTrainedModel, tokenizer_json: str) -> TorchModel:
        texts = tokenize(tokenizer_json)
        logits_NC = predict_logits(model, texts.rows, on_progress)
        return TorchModel(model=model, texts=texts, logits_NC=logits_NC)

    teacher = read_torch_model(teacher_model, tokenizer_json)
    student = None
    if student_path is not None:
        student_model = _load_student(student_path, labels, max_length)
        student = read_torch_model(student_model, load_tokenizer(student_path)[0])
    steps = build_steps(
        teacher=teacher,
        student=student,
        graphs=[
            _graph_of(bundle, tokenize, before=bundles[index - 1] if index else None)
            for index, bundle in enumerate(bundles)
        ],
        padded_to=max_length,
        baseline_rows=config.baseline_rows,
        cpus_of_instance=cpus_of_instance,
    )
    return Ablation(
        steps=tuple(steps),
        lengths_N=teacher.texts.rows.lengths_N,
        labels_N=labels_N,
        description=(f"{found.name} on {eval_path.name}, texts truncated to {max_length} tokens"),
    )


def _graph_of(
    bundle: Bundle, tokenize: Callable[[str], TimedRows], *, before: Bundle | None
) -> GraphModel:
    """A bundle's graph, under the name of what it adds to the graph before it."""
    if before is None:
        is_int8 = bundle.precision.startswith("int8")
        name = INT8_GRAPH if is_int8 else "+ graph optimization"
    else:
        own, others = _stages_of(bundle), _stages_of(before)
        titles = {stage: title for stage, title in _TITLES.items() if stage in own}
        added = [title for stage, title in titles.items() if stage not in others]
        what = added or [*titles.values()][-1:]  # the same again, to a further degree
        name = f"+ {' and '.join(what)}: {bundle.path.name}" if what else f"+ {bundle.path.name}"
    return GraphModel(
        name=name,
        path=bundle.model_path,
        texts=tokenize((bundle.path / TOKENIZER_FILE).read_text(encoding="utf-8")),
        max_batch_tokens=bundle.cost_profile.max_batch_tokens,
    )


def _stages_of(bundle: Bundle) -> set[str]:
    """Names of the stages that made it; those of several rounds have a number at their end."""
    return {quality.stage.rstrip("-_ 0123456789") for quality in bundle.stages}


def _choose_max_length(
    max_length: int | None,
    tokenizer_limit: int,
    teacher: PreTrainedModel,
    bundles: Sequence[Bundle],
) -> int:
    """Choose one length limit for all steps, so that their results can be compared."""
    if max_length is None:
        default = default_max_length(teacher, tokenizer_limit)
        max_length = bundles[0].max_length if bundles else default
    if max_length > max_positions(teacher.config):
        raise InputError(
            f"--max-length {max_length}: the teacher has {max_positions(teacher.config)} positions"
        )
    for bundle in bundles:
        if bundle.max_length != max_length:
            raise InputError(
                f"--bundle {bundle.path}: truncates to {bundle.max_length} tokens, the other steps "
                f"to {max_length}; compress it again with --max-length {max_length}"
            )
    return max_length


def _check_bundles(bundles: Sequence[Bundle], labels: tuple[str, ...], *, text_pairs: bool) -> None:
    for bundle in bundles:
        own = tuple(bundle.provenance.get(TEACHER_LABELS, bundle.labels))
        _check_labels(f"--bundle {bundle.path}", own, labels)
        if bundle.text_pairs != text_pairs:
            reads = "pairs of texts" if bundle.text_pairs else "single texts"
            remedy = "leave out" if text_pairs else "give"
            raise InputError(f"--bundle {bundle.path}: reads {reads}; {remedy} --text-pair-column")


def _load_student(path: Path, labels: tuple[str, ...], max_length: int) -> PreTrainedModel:
    student = load_model(path)
    _check_labels(f"--student {path}", class_names(student.config), labels)
    positions = max_positions(student.config)
    if max_length > positions:
        raise InputError(f"--max-length {max_length}: the student has {positions} positions")
    return student


def _check_labels(what: str, labels: tuple[str, ...], teacher_labels: tuple[str, ...]) -> None:
    if labels != teacher_labels:
        raise InputError(
            f"{what}: its labels ({_some(labels)}) are not the teacher's "
            f"({_some(teacher_labels)}); give models of one task"
        )


def _timed_tokenization(examples: Examples, max_length: int) -> Callable[[str], TimedRows]:
    """A function that tokenizes the texts by a serialized tokenizer, once for each tokenizer."""
    known: dict[str, TimedRows] = {}

    def tokenize(tokenizer_json: str) -> TimedRows:
        if tokenizer_json not in known:
            known[tokenizer_json] = time_tokenization(examples, tokenizer_json, max_length)
        return known[tokenizer_json]

    return tokenize


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
