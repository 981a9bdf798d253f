import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers import Scorer
from fastformers.ablation.measure import measure_ablation
from fastformers.ablation.texts import TextsConfig, load_texts
from fastformers.data.examples import Columns
from fastformers.errors import InputError
from fastformers.inference.bundle import write_bundle
from fastformers.inference.description.rename_labels import name_labels

torch = pytest.importorskip("torch")

from fastformers.ablation.from_models import build_ablation  # noqa: E402
from fastformers.inference.tokenizer import Tokenizer  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.loading import load_model  # noqa: E402

CPUS = tuple(sorted(os.sched_getaffinity(0)))
LABELS = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def teacher(save_teacher, tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("models") / "teacher", labels=LABELS)


@pytest.fixture(scope="module")
def student(save_teacher, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "student"
    return save_teacher(path, num_hidden_layers=1, labels=LABELS)


@pytest.fixture(scope="module")
def bundle(bundle_factory, tmp_path_factory):
    return bundle_factory(
        tmp_path_factory.mktemp("bundles") / "single", labels=LABELS, num_layers=1
    )


@pytest.fixture(scope="module")
def pair_bundle(bundle_factory, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "pair"
    return bundle_factory(path, labels=LABELS, text_pairs=True)


@pytest.fixture(scope="module")
def eval_file(teacher, tokenizer_json, make_texts, tmp_path_factory):
    """Texts labeled by the teacher; every fourth label is wrong."""
    texts = make_texts(40)
    rows = Tokenizer(tokenizer_json, max_length=64).encode(texts)
    classes_N = predict_logits(load_model(teacher), rows).argmax(axis=1)
    assert len(set(classes_N.tolist())) > 1
    classes_N[::4] = (classes_N[::4] + 1) % 3
    labels = [LABELS[index] for index in classes_N]
    path = tmp_path_factory.mktemp("eval") / "eval.parquet"
    pyarrow.parquet.write_table(pa.table({"text": texts, "other": texts, "label": labels}), path)
    return path


@pytest.fixture
def build(teacher, eval_file):
    def make(*, student_path=None, bundle_paths=(), teacher_path=teacher, **config):
        texts = TextsConfig(**{"eval": eval_file, "baseline_rows": 3, **config})
        return build_ablation(
            texts,
            load_texts(texts),
            teacher_path=teacher_path,
            student_path=student_path,
            bundle_paths=bundle_paths,
            cpus_of_instance=[CPUS],
        )

    return make


def accuracy_of(labels, eval_file):
    expected = pyarrow.parquet.read_table(eval_file)["label"].to_pylist()
    return np.mean([label == right for label, right in zip(labels, expected, strict=True)])


def test_a_whole_ablation_with_the_accuracy_of_each_steps_own_predictions(
    build, student, bundle, bundle_factory, eval_file, tokenizer_json, tmp_path
):
    narrow = bundle_factory(tmp_path / "narrow", labels=LABELS, width=24, num_layers=1)
    ablation = build(student_path=student, bundle_paths=(bundle.path, narrow.path))
    results = measure_ablation(ablation, usd_per_hour=1.0, repeats=1)
    assert [r.name for r in results] == [
        "PyTorch out of the box, padded to 64",
        "+ dynamic sequence length",
        "+ knowledge distillation",
        "+ graph optimization",  # these bundles are float32
        "+ multi-instance inference",
        "+ narrow",
    ]
    texts = pyarrow.parquet.read_table(eval_file)["text"].to_pylist()
    rows = Tokenizer(tokenizer_json, max_length=64).encode(texts)
    of_student = predict_logits(load_model(student), rows).argmax(axis=1)
    of_bundle, of_narrow = (
        accuracy_of(Scorer(b).score(texts).labels, eval_file) for b in (bundle, narrow)
    )
    expected = [
        *(0.75, 0.75),
        accuracy_of([LABELS[index] for index in of_student], eval_file),
        *(of_bundle, of_bundle, of_narrow),
    ]
    assert [r.accuracy for r in results] == pytest.approx(expected)
    assert len(set(expected)) == 4
    assert [r.timed_rows for r in results] == [3, 3, 40, 40, 40, 40]
    assert all(r.tokenization_s == results[0].tokenization_s for r in results)  # one tokenizer
    assert results[0].tokenization_s > 0
    assert ablation.description == "teacher on eval.parquet, texts truncated to 64 tokens"


def test_steps_that_are_not_given_are_not_there(build, bundle):
    assert len(build().steps) == 2
    names = [step.name for step in build(bundle_paths=[bundle.path]).steps]
    assert names[2:] == ["+ graph optimization", "+ multi-instance inference"]


def test_a_pruned_int8_bundle_is_named_so(build, bundle, tmp_path):
    for name, stages in (("whole", ["teacher"]), ("small", ["teacher", "prune"])):
        copy_bundle(bundle, tmp_path / name, precision="int8", stages=stages)
    steps = build(bundle_paths=[tmp_path / "whole", tmp_path / "small"]).steps
    assert steps[2].name == "+ int8 quantization + graph optimization"
    assert steps[4].name == "+ pruning: small"


def test_a_bundle_is_named_by_the_stages_that_the_one_before_lacks(build, bundle, tmp_path):
    stages = {
        "whole": ["teacher"],
        "pruned": ["teacher", "prune 1"],
        "more": ["teacher", "prune 1", "prune 2"],
        "fewer": ["teacher", "prune", "keep_tokens"],
        "fewest": ["teacher", "prune", "keep_tokens"],
    }
    for name, names in stages.items():
        copy_bundle(bundle, tmp_path / name, stages=names)
    steps = build(bundle_paths=[tmp_path / name for name in stages]).steps
    assert [step.name for step in steps[4:]] == [
        "+ pruning: pruned",
        "+ pruning: more",
        "+ token pruning: fewer",
        "+ token pruning: fewest",
    ]
    steps = build(bundle_paths=[tmp_path / "whole", tmp_path / "fewer"]).steps
    assert steps[-1].name == "+ pruning and token pruning: fewer"


def copy_bundle(bundle, path, *, stages, **changes):
    qualities = tuple(replace(bundle.stages[0], stage=stage) for stage in stages)
    write_bundle(
        replace(bundle, path=path, stages=qualities, **changes),
        model=bundle.model_path,
        tokenizer_json=(bundle.path / "tokenizer.json").read_text(),
    )


def test_one_length_limit_for_all_steps(build, bundle_factory, tmp_path):
    short = bundle_factory(tmp_path / "short", labels=LABELS, max_length=16)
    ablation = build(bundle_paths=[short.path])
    assert ablation.lengths_N.max() == 16
    assert ablation.steps[0].name.endswith("padded to 16")
    assert {step.num_tokens for step in ablation.steps[2:]} == {ablation.lengths_N.sum()}
    assert build(max_length=12).lengths_N.max() == 12
    with pytest.raises(InputError, match=r"--bundle .*short: truncates to 16 tokens, .* to 32"):
        build(bundle_paths=[short.path], max_length=32)


def test_no_more_rows_are_used_than_the_limit(build):
    assert len(build(limit=7).lengths_N) == 7


def test_models_that_do_not_belong_together_are_refused(
    build, save_teacher, bundle_factory, pair_bundle, tmp_path
):
    other = bundle_factory(tmp_path / "other", labels=LABELS[::-1])
    with pytest.raises(InputError, match=r"other: its labels \(positive, .*\) are not the teacher"):
        build(bundle_paths=[other.path])
    student = save_teacher(tmp_path / "student", labels=("a", "b", "c"))
    with pytest.raises(InputError, match=r"--student .*student: its labels \(a, b, c\) are not"):
        build(student_path=student)
    with pytest.raises(InputError, match=r"--bundle .*: reads pairs of texts; give --text-pair-c"):
        build(bundle_paths=[pair_bundle.path])


def test_a_bundle_whose_labels_got_names_still_belongs_to_its_teacher(
    build, bundle_factory, tmp_path
):
    named = bundle_factory(tmp_path / "named", labels=LABELS)
    name_labels(named, [f"class {label}" for label in LABELS])
    assert len(build(bundle_paths=[named.path]).steps) == 4


def test_pairs_reach_every_step(build, pair_bundle, bundle):
    ablation = build(bundle_paths=[pair_bundle.path], columns=Columns(text_pair="other"))
    results = measure_ablation(ablation, usd_per_hour=1.0, repeats=1)
    assert len(results) == 4
    with pytest.raises(InputError, match="reads single texts; leave out --text-pair-column"):
        build(bundle_paths=[bundle.path], columns=Columns(text_pair="other"))


def test_a_length_beyond_a_models_positions_is_refused(build, save_teacher, tmp_path):
    with pytest.raises(InputError, match="--max-length 65: the teacher has 64 positions"):
        build(max_length=65)
    short = save_teacher(tmp_path / "short", labels=LABELS, max_position_embeddings=32)
    with pytest.raises(InputError, match="--max-length 64: the student has 32 positions"):
        build(student_path=short)


def test_a_teacher_without_tokenizer_is_refused(build, make_teacher, tmp_path):
    make_teacher().save_pretrained(tmp_path / "bare")
    with pytest.raises(InputError, match=r"bare: has no tokenizer\.json"):
        build(teacher_path=tmp_path / "bare")


def test_a_label_of_another_task_is_named(build, tmp_path):
    path = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pa.table({"text": ["a cat"], "label": ["maybe"]}), path)
    with pytest.raises(InputError, match=r"other\.parquet: label 'maybe' is not one of"):
        build(eval=path)


def test_teachers_of_other_tasks_are_refused(build, save_teacher, tmp_path):
    path = save_teacher(tmp_path / "many", labels=LABELS, problem_type="multi_label_classification")
    with pytest.raises(InputError, match="many: its task is multi-label-classification; ablate"):
        build(teacher_path=path)


def test_the_accuracy_pass_reports_its_progress(teacher, student, eval_file):
    seen = []
    texts = TextsConfig(eval=eval_file)
    build_ablation(
        texts,
        load_texts(texts),
        teacher_path=teacher,
        student_path=student,
        bundle_paths=[],
        cpus_of_instance=[CPUS],
        on_progress=lambda what, done, total: seen.append((done, total)),
    )
    assert seen.count((40, 40)) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 3}, "--max-length 3: give at least 4"),
        ({"limit": 0}, "--limit 0: give at least 1"),
        ({"baseline_rows": 0}, "--baseline-rows 0: give at least 1"),
        ({"eval": None}, "--eval is missing"),
    ],
)
def test_settings_that_make_no_sense_are_refused(build, changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)
