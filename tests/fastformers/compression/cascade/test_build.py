"""`compress --cascade` from end to end, with a tiny teacher."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers import Scorer, open_bundle
from fastformers.data.examples import Columns
from fastformers.data.splitting import SelectConfig
from fastformers.errors import BundleError, InputError, QualityError
from fastformers.inference.cost_profile import CostProfile
from fastformers.inference.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.compression.cascade import build  # noqa: E402
from fastformers.compression.cascade.config import CascadeConfig  # noqa: E402
from fastformers.compression.compress import compress  # noqa: E402
from fastformers.compression.compress_config import CompressConfig  # noqa: E402
from fastformers.compression.recipe_config import (  # noqa: E402
    DistillConfig,
    QuantizeConfig,
    RecipeConfig,
    StudentConfig,
    TrimConfig,
)
from fastformers.compression.search import candidate  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.loading import load_model  # noqa: E402
from fastformers.models.training_config import TrainingConfig  # noqa: E402

LABELS = ("negative", "neutral", "positive")
FLOAT32 = RecipeConfig(quantize=QuantizeConfig(precision="float32"))


@pytest.fixture(scope="module")
def teacher(save_teacher, tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher") / "bert", labels=LABELS)


@pytest.fixture(scope="module")
def smaller(teacher, tmp_path_factory):
    """A student that is the teacher with some noise, and learns next to nothing."""
    path = tmp_path_factory.mktemp("student") / "bert"
    shutil.copytree(teacher, path)
    model = load_model(teacher)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.01 * torch.randn_like(weights))
    model.save_pretrained(path)
    return replace(
        FLOAT32,
        student=StudentConfig(student=path, keep_gelu=True),
        distill=DistillConfig(training=TrainingConfig(epochs=0.01, learning_rate=1e-9)),
    )


@pytest.fixture(scope="module")
def files(teacher, tokenizer_json, make_texts, tmp_path_factory):
    """Files labeled by the teacher; every tenth label is another one."""
    folder = tmp_path_factory.mktemp("files")
    model = load_model(teacher)
    for seed, (name, count) in enumerate({"train": 120, "eval": 200, "new": 1500}.items()):
        texts = make_texts(count, seed=seed)
        rows = Tokenizer(tokenizer_json, max_length=64).encode(texts)
        classes_N = predict_logits(model, rows).argmax(axis=1)
        classes_N[::10] = (classes_N[::10] + 1) % 3
        columns = {"text": texts, "label": [LABELS[index] for index in classes_N]}
        pyarrow.parquet.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


@pytest.fixture(autouse=True)
def costs(monkeypatch):
    """What graphs cost is not measured here: a second graph costs five times the first."""
    profile = CostProfile(
        engine="onnxruntime 1.0",
        cpu_model="a processor",
        max_batch_tokens=512,
        lengths=(2, 64),
        seconds_per_row=(1e-4, 1e-3),
        seconds_alone=(1e-4, 1e-3),
    )
    other = replace(profile, seconds_per_row=(5e-4, 5e-3), seconds_alone=(5e-4, 5e-3))
    monkeypatch.setattr(candidate, "measure_cost_profile", lambda engine, max_length: profile)
    monkeypatch.setattr(build, "measure_both", lambda *engines, share, max_length: (profile, other))


@pytest.fixture
def configure(teacher, files, smaller, tmp_path):
    def make(*, recipe=smaller, **changes):
        own = {"cascade": True, "cascade_drop": 4.0}
        names = [name for name in changes if name.startswith("cascade")]
        cascade = CascadeConfig(**{**own, **{name: changes.pop(name) for name in names}})
        return CompressConfig(
            **{
                "teacher": teacher,
                "train": files / "train.parquet",
                "eval": files / "eval.parquet",
                "output": tmp_path / "bundle",
                "work": tmp_path / "work",
                "recipe": recipe,
                "cascade": cascade,
                "select": SelectConfig(file=files / "new.parquet"),
                "max_accuracy_drop": 15,
                **changes,
            }
        )

    return make


def test_a_cascade_proves_what_it_says(configure, files):
    seen = []
    result = compress(configure(), on_stage=seen.append)
    bundle = open_bundle(result.bundle.path)
    assert bundle == result.bundle
    cascade = bundle.cascade
    assert [stage.stage for stage in seen] == ["teacher", "distill", "export", "second", "cascade"]
    assert (cascade.second_quality, cascade.quality) == tuple(seen[-2:])
    assert bundle.quality == cascade.quality
    columns = pyarrow.parquet.read_table(files / "eval.parquet").to_pydict()
    predictions = Scorer(bundle).score(columns["text"])
    right = np.array(predictions.labels) == np.array(columns["label"])
    assert float(right.mean()) == cascade.quality.quality
    assert cascade.max_drop == 4.0
    assert 1200 < cascade.num_held_out < 1500  # without texts that train or evaluate, too
    assert cascade.quality.quality > bundle.stages[-1].quality
    assert cascade.quality.agreement > bundle.stages[-1].agreement
    assert 0.05 < cascade.share < 0.95
    assert cascade.eval_share == pytest.approx(cascade.share, abs=0.1)
    assert (cascade.num_layers, cascade.width) == (2, 32)
    assert cascade.input_names == bundle.input_names == ("input_ids",)
    assert cascade.quality.model_bytes > cascade.second_quality.model_bytes
    assert result.chosen.name == "bert, float32, then teacher, float32"
    assert result.chosen.seconds_per_million > 0
    assert bundle.cost_profile.max_batch_tokens == cascade.second_profile.max_batch_tokens
    assert bundle.provenance["chosen_on_select"] == ["the threshold"]
    assert bundle.provenance["select_rows"] == cascade.num_held_out
    with_bundle = compress(
        configure(
            cascade_with=make_second(configure),
            output=bundle.path.with_name("again"),
        )
    )
    assert with_bundle.bundle.cascade.threshold == cascade.threshold
    # Another run may be about to put the second graph that it copied into its bundle.
    assert len([*bundle.path.with_name("work").glob("cascade-*")]) == 2


def make_second(configure):
    config = configure(
        recipe=FLOAT32,
        cascade=False,
    )
    path = config.output.with_name("second")
    return compress(replace(config, output=path)).bundle.path


def test_static_vectors_of_pairs_stand_before_a_teacher_without_token_types(
    configure, save_teacher, tokenizer_json, make_texts, tmp_path
):
    """The student's graph tells the texts apart by token types, which a DistilBERT has not."""
    teacher = save_teacher(tmp_path / "teacher", "DistilBert", labels=LABELS)
    model = load_model(teacher)
    for seed, (name, count) in enumerate({"train": 60, "eval": 60, "new": 600}.items()):
        texts, others = make_texts(count, seed=seed), make_texts(count, seed=9 + seed)
        rows = Tokenizer(tokenizer_json, max_length=64).encode(texts, others)
        labels = [LABELS[index] for index in predict_logits(model, rows).argmax(axis=1)]
        columns = {"text": texts, "other": others, "label": labels}
        pyarrow.parquet.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    recipe = replace(
        FLOAT32,
        student=StudentConfig(student_layers=0),
        distill=DistillConfig(training=TrainingConfig(epochs=1, learning_rate=0.01)),
    )
    config = configure(
        recipe=recipe,
        teacher=teacher,
        train=tmp_path / "train.parquet",
        eval=tmp_path / "eval.parquet",
        columns=Columns(text_pair="other"),
        select=SelectConfig(file=tmp_path / "new.parquet"),
        cascade_drop=4.0,
        max_accuracy_drop=100,
    )
    bundle = open_bundle(compress(config).bundle.path)
    assert bundle.input_names == ("input_ids", "token_type_ids")
    assert bundle.cascade.input_names == ("input_ids",)
    columns = pyarrow.parquet.read_table(tmp_path / "eval.parquet").to_pydict()
    labels = Scorer(bundle).score(columns["text"], columns["other"]).labels
    right = np.mean([ours == theirs for ours, theirs in zip(labels, columns["label"], strict=True)])
    assert right == bundle.cascade.quality.quality


def test_rows_are_held_out_of_training_where_none_are_given(configure, files, caplog):
    select = SelectConfig(share=0.25)
    result = compress(configure(select=select, train=files / "new.parquet", cascade_drop=5.0))
    artifact, evaluation = (
        result.chosen.artifact,
        pyarrow.parquet.read_table(files / "eval.parquet"),
    )
    assert len(artifact.train) + len(artifact.select) == 1500
    assert 340 < result.bundle.cascade.num_held_out == len(artifact.select) <= 375
    assert {*artifact.select.texts}.isdisjoint(
        [*artifact.train.texts, *evaluation["text"].to_pylist()]
    )
    config = configure(cascade_drop=5.0)  # 120 rows, of which a tenth is too few
    with pytest.raises(
        InputError, match=r"--cascade: needs rows to choose by, and of .*train\.par"
    ):
        compress(replace(config, select=SelectConfig()))


def test_rows_too_few_for_an_allowance_are_refused_before_any_work(configure):
    message = (
        r"--cascade-drop 0\.08: the rows that choose \(1,\d+\) cannot show a loss below 0\.\d+"
    )
    with pytest.raises(InputError, match=message):
        compress(configure(cascade_drop=0.08), on_stage=lambda quality: pytest.fail("worked"))


def test_a_student_that_loses_no_more_alone_makes_no_bundle(configure):
    with pytest.raises(QualityError, match="the student alone loses no more"):
        compress(configure(cascade_drop=99.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"search": True, "recipe": RecipeConfig(), "cascade_with": Path("b")},
            "--cascade-with b: --search chooses both graphs",
        ),
        ({"recipe": FLOAT32}, "--cascade: both graphs would be the teacher's"),
        (
            {"recipe": RecipeConfig(quantize=QuantizeConfig(precision="int8,float16"))},
            "--precision int8,float16: the graphs of a cascade are int8 or float32",
        ),
        (
            {"recipe": RecipeConfig(quantize=QuantizeConfig(precision="int8-dynamic"))},
            "--precision int8-dynamic: the graphs of a cascade",
        ),
        (
            {
                "recipe": RecipeConfig(trim=TrimConfig(trim_vocabulary=50)),
                "cascade_with": "second",
            },
            "--trim-vocabulary: both graphs of a cascade read the same tokens",
        ),
        ({"cascade_drop": -1.0}, "--cascade-drop -1: give 0 to 100"),
    ],
)
def test_settings_that_make_no_cascade_are_refused(configure, changes, message):
    with pytest.raises(InputError, match=message):
        configure(**changes)


@pytest.fixture
def untrained(monkeypatch):
    """Nothing may be trained or run."""
    from fastformers.compression import compress as module

    monkeypatch.setattr(module, "QualityGate", None)


@pytest.mark.parametrize(
    ("described", "change", "message"),
    [
        ({"labels": LABELS[::-1]}, {}, "labels 'positive', .*, and the student's 'negative', "),
        ({"labels": LABELS}, {"max_length": 32}, "max length 32, and the student's 64; give"),
        ({"labels": LABELS, "text_pairs": True}, {}, "text pairs True, and the student's False"),
        (
            {"labels": LABELS, "task": "multi-label-classification"},
            {},
            "task multi-label-classification, and the student's text-classification",
        ),
        ({"labels": LABELS}, {"precision": "float16"}, "is float16; the graphs of a cascade are"),
        ({"labels": LABELS}, {"tokenizer": True}, "has another tokenizer than the student"),
    ],
)
def test_a_bundle_that_cannot_stand_behind_the_student_is_refused_before_training(
    configure, bundle_factory, untrained, tmp_path, described, change, message
):
    from fastformers.inference.bundle import write_bundle

    made = bundle_factory(tmp_path / "made", **described)
    tokenizer = json.loads((made.path / "tokenizer.json").read_text())
    if change.pop("tokenizer", False):
        tokenizer["normalizer"]["lowercase"] = False
    second = write_bundle(
        replace(made, path=tmp_path / "second", **change),
        model=made.model_path,
        tokenizer_json=json.dumps(tokenizer),
    )
    with pytest.raises(InputError, match=f"--cascade-with {second.path}: {message}"):
        compress(configure(cascade_with=second.path))


def test_a_cascade_or_nothing_cannot_stand_behind_a_student(
    configure, cascade_bundle, untrained, tmp_path
):
    with pytest.raises(InputError, match="is a cascade itself; give a bundle of one graph"):
        compress(configure(cascade_with=cascade_bundle.path))
    with pytest.raises(BundleError, match="not a bundle"):
        compress(configure(cascade_with=tmp_path))
