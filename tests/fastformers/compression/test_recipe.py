import copy
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastformers.data.examples import Examples
from fastformers.errors import FastformersError, InputError, QualityError, StageError
from fastformers.inference.manifest import MODEL_FILE
from fastformers.inference.onnx_files import measure_graph_bytes, weights_path
from fastformers.inference.tokenizer import Tokenizer

torch = pytest.importorskip("torch")

from fastformers.compression.artifact import ModelArtifact  # noqa: E402
from fastformers.compression.quality import QualityGate  # noqa: E402
from fastformers.compression.recipe import Stage, is_kept, run_recipe, stage_directories  # noqa: E402
from fastformers.compression.recipe_config import QuantizeConfig, TrimConfig  # noqa: E402
from fastformers.compression.stages.graph_stages import (  # noqa: E402
    export_stage,
    float16_stage,
    quantize_stage,
)
from fastformers.compression.stages.model_stages import trim_vocabulary_stage  # noqa: E402
from fastformers.models.loading import load_tokenizer  # noqa: E402
from fastformers.models.vocabulary import without_types  # noqa: E402

NAMES = ("no", "yes")
EVAL = Path("eval.csv")


@pytest.fixture
def artifact(make_teacher, tokenizer_json, make_texts, tmp_path):
    train = Examples(texts=make_texts(64, seed=1), text_pairs=None, labels=["no"] * 64)
    artifact = ModelArtifact(
        key="teacher",
        model=make_teacher(labels=NAMES),
        tokenizer_json=tokenizer_json,
        max_length=32,
        text_pairs=False,
        train=train,
        train_path=Path("train.csv"),
        work=tmp_path / "work",
    )
    balance(artifact)
    return artifact


def balance(artifact):
    """Shift the teacher's bias so that it predicts yes and no equally often."""
    logits_NC = artifact.logits(artifact.train)
    with torch.no_grad():
        artifact.model.classifier.bias[1] += float(np.median(logits_NC[:, 0] - logits_NC[:, 1]))


@pytest.fixture
def evaluation(artifact, make_texts):
    """Texts labeled by the teacher itself; every fourth label is wrong."""
    texts = make_texts(80, seed=2)
    examples = Examples(texts=texts, text_pairs=None, labels=["no"] * 80)
    classes_N = artifact.logits(examples).argmax(axis=1)
    assert 20 < classes_N.sum() < 60
    classes_N[::4] = 1 - classes_N[::4]
    return replace(examples, labels=[NAMES[index] for index in classes_N])


def run(artifact, stages, evaluation, *, max_accuracy_drop=100.0, **options):
    gate = QualityGate(artifact, evaluation, EVAL, max_accuracy_drop=max_accuracy_drop)
    last, qualities = run_recipe(artifact, stages, gate, **options)
    gate.check(qualities[-1])
    return last, qualities


def to_int8(**changes):
    return quantize_stage(QuantizeConfig(**changes))


def trim_to(num_tokens):
    return trim_vocabulary_stage(TrimConfig(trim_vocabulary=num_tokens))


def stage(name, change=lambda artifact: artifact, *, requires=None, ensures=None):
    return Stage(
        name=name,
        settings={},
        requires=requires or (lambda artifact: None),
        run=lambda artifact, directory, on_progress: change(artifact),
        ensures=ensures or (lambda before, after: None),
    )


def fail(*artifacts):
    raise FastformersError("no good")


def negate_logits(artifact):
    model = copy.deepcopy(artifact.model)
    with torch.no_grad():
        model.classifier.weight.neg_()
        model.classifier.bias.neg_()
    return replace(artifact, model=model)


def test_quality_is_measured_before_the_first_stage_and_after_each(artifact, evaluation):
    seen = []
    stages = [
        trim_to(104),
        export_stage(),
        to_int8(),
    ]
    last, qualities = run(artifact, stages, evaluation, on_stage=seen.append)
    assert seen == qualities
    assert [quality.stage for quality in qualities] == [
        "teacher",
        "trim_vocabulary",
        "export",
        "quantize",
    ]
    assert (qualities[0].quality, qualities[0].agreement) == (0.75, 1.0)
    assert (qualities[2].quality, qualities[2].agreement) == (0.75, 1.0)
    assert qualities[3].agreement >= 0.9
    assert {quality.num_rows for quality in qualities} == {80}
    assert qualities[0].seconds == 0
    assert all(quality.seconds > 0 for quality in qualities[1:])
    assert last.precision == "int8"
    assert measure_graph_bytes(last.graph) == qualities[3].model_bytes
    assert qualities[3].model_bytes < 0.6 * qualities[2].model_bytes
    agreeing = last.logits(evaluation).argmax(axis=1) == [
        NAMES.index(label) for label in evaluation.labels
    ]
    assert agreeing.mean() == qualities[3].quality


def test_of_two_runs_in_one_directory_one_makes_a_stage_and_the_other_reads_it(
    artifact, evaluation, caplog
):
    made, others = [], []

    def make(artifact):
        """The second run begins while the first one makes the stage."""
        made.append(threading.current_thread())
        if not others:
            others.append(threading.Thread(target=lambda: ended.append(run_it())))
            others[0].start()
            while others[0].is_alive() and not caplog.messages:
                others[0].join(0.01)
        return negate_logits(artifact)

    def run_it():
        return run(artifact, [stage("turn", make)], evaluation)[1]

    ended = []
    own = run_it()
    others[0].join()
    assert made == [threading.main_thread()]
    assert ended == [own]
    [line] = caplog.messages
    assert line.endswith(": another run makes it; waiting for that")


def test_agreement_is_with_the_teacher_not_with_the_stage_before(artifact, evaluation):
    stages = [stage("turn", negate_logits), stage("rest")]
    _, qualities = run(artifact, stages, evaluation)
    assert [quality.agreement for quality in qualities] == [1, 0, 0]
    assert [quality.quality for quality in qualities] == [0.75, 0.25, 0.25]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        pytest.param(
            [to_int8()],
            r"stage quantize \(after teacher\): needs a float graph; run export first",
            id="quantize before export",
        ),
        pytest.param(
            [export_stage(), trim_to(103)],
            r"stage trim_vocabulary \(after teacher, export\): .* must come before export",
            id="trim after export",
        ),
        pytest.param(
            [export_stage(), export_stage()],
            r"stage export \(after teacher, export\): .* must come before export",
            id="export twice",
        ),
        pytest.param(
            [
                trim_to(104),
                export_stage(),
                to_int8(),
                to_int8(),
            ],
            r"stage quantize \(after teacher, trim_vocabulary, export, quantize\): needs a float",
            id="quantize twice",
        ),
        pytest.param(
            [export_stage(), to_int8(min_int8_agreement=0), float16_stage(MODEL_FILE)],
            r"stage float16 \(after teacher, export, quantize\): needs a float graph",
            id="float16 of int8",
        ),
    ],
)
def test_stages_out_of_order_are_refused_with_those_before(artifact, evaluation, stages, message):
    with pytest.raises(StageError, match=message):
        run(artifact, stages, evaluation)


@pytest.mark.parametrize("condition", ["requires", "ensures"])
def test_a_broken_condition_names_its_stage_and_those_before(artifact, evaluation, condition):
    with pytest.raises(StageError, match=r"stage bad \(after teacher, fine\): no good") as caught:
        run(artifact, [stage("fine"), stage("bad", **{condition: fail})], evaluation)
    assert type(caught.value.__cause__) is FastformersError


def test_a_stage_that_may_not_start_does_not_run(artifact, evaluation):
    with pytest.raises(StageError, match="no good"):
        run(artifact, [stage("bad", pytest.fail, requires=fail)], evaluation)


def test_an_export_that_differs_from_pytorch_is_refused(artifact, evaluation, monkeypatch):
    def read_wrongly(model):
        encoder = read_encoder(model)
        return replace(encoder, position_embeddings_PE=encoder.position_embeddings_PE[::-1])

    from fastformers.compression.stages import graph_stages as stages

    read_encoder = stages.read_encoder
    monkeypatch.setattr(stages, "read_encoder", read_wrongly)
    message = r"stage export \(after teacher\): the graph's logits differ from PyTorch's by"
    with pytest.raises(StageError, match=message):
        run(artifact, [export_stage()], evaluation)


def test_a_model_beyond_the_range_of_float16_is_refused(artifact, evaluation, monkeypatch):
    from fastformers.compression.stages import graph_stages as stages

    read_encoder = stages.read_encoder

    def read_shifted(model):
        encoder = read_encoder(model)
        layer = encoder.layers[0]
        norm = replace(layer.attention_norm, bias=layer.attention_norm.bias + np.float32(1e5))
        return replace(encoder, layers=(replace(layer, attention_norm=norm),))

    def shift(artifact):
        monkeypatch.setattr(stages, "read_encoder", read_shifted)
        return artifact

    with pytest.raises(StageError, match=r"stage float16 .* beyond 65,504"):
        run(
            artifact, [export_stage(), stage("shift", shift), float16_stage(MODEL_FILE)], evaluation
        )


def test_a_teacher_that_is_not_finite_is_refused(artifact, evaluation):
    with torch.no_grad():
        artifact.model.classifier.bias.fill_(np.nan)
    with pytest.raises(StageError, match="stage export"):
        run(artifact, [export_stage()], evaluation)


def test_a_recipe_that_loses_too_much_is_refused(artifact, evaluation):
    message = r"turn: accuracy 25\.00 is 50\.00 points below the teacher's 75\.00"
    with pytest.raises(QualityError, match=message):
        run(artifact, [stage("turn", negate_logits)], evaluation, max_accuracy_drop=49.9)


def test_a_stage_may_recover_what_an_earlier_one_lost(artifact, evaluation):
    stages = [stage("turn", negate_logits), stage("turn back", negate_logits)]
    _, qualities = run(artifact, stages, evaluation, max_accuracy_drop=0)
    assert [quality.quality for quality in qualities] == [0.75, 0.25, 0.75]


def test_a_recipe_that_was_interrupted_resumes_where_it_was(artifact, evaluation):
    ran = []

    def log(name):
        def change(artifact):
            ran.append(name)
            if name == "cut" and ran.count("cut") == 1:
                raise KeyboardInterrupt
            return negate_logits(artifact)

        return stage(name, change)

    stages = [trim_to(90), log("turn"), log("cut"), export_stage()]
    with pytest.raises(KeyboardInterrupt):
        run(artifact, stages, evaluation)
    resumed, qualities = run(artifact, stages, evaluation)
    assert ran == ["turn", "cut", "cut"]
    again, read = run(artifact, stages, evaluation)
    assert (len(ran), read) == (3, qualities)
    np.testing.assert_array_equal(again.logits(evaluation), resumed.logits(evaluation))
    assert again.model.config.vocab_size == 90


def test_a_graph_kept_without_its_weights_is_built_again(artifact, evaluation):
    first, _ = run(artifact, [export_stage()], evaluation)
    expected_NC = first.logits(evaluation)
    weights_path(first.graph).unlink()
    again, _ = run(artifact, [export_stage()], evaluation)
    assert again.graph == first.graph
    np.testing.assert_array_equal(again.logits(evaluation), expected_NC)


def test_a_graph_of_another_version_is_built_again(artifact, evaluation, monkeypatch):
    from fastformers.compression.stages import graph_stages as stages

    first, _ = run(artifact, [export_stage(), to_int8()], evaluation)
    same, _ = run(artifact, [export_stage(), to_int8()], evaluation)
    monkeypatch.setattr(stages, "GRAPH_VERSION", stages.GRAPH_VERSION + 1)
    other, _ = run(artifact, [export_stage(), to_int8()], evaluation)
    assert same.graph == first.graph != other.graph


def test_other_settings_or_another_beginning_are_other_work(artifact, evaluation):
    ran = []
    note = stage("note", lambda artifact: ran.append(artifact.model.config.vocab_size) or artifact)
    for num_tokens in (90, 91, 90):
        run(artifact, [trim_to(num_tokens), note], evaluation)
    assert ran == [90, 91]


def test_what_a_stage_measures_names_its_work_too(artifact, evaluation):
    ran = []
    note = stage("note", lambda artifact: ran.append(len(ran)) or artifact)
    for value in (1, 1, 2):
        measured = replace(note, measure=lambda artifact, on_progress, value=value: {"t": value})
        run(artifact, [measured], evaluation)
    assert ran == [0, 1]


def test_the_allowance_is_for_the_whole_recipe(artifact, evaluation):
    def favor_yes(artifact):
        model = copy.deepcopy(artifact.model)
        with torch.no_grad():
            model.classifier.bias[1] += 0.4
        return replace(artifact, model=model)

    stages = [stage("one", favor_yes), stage("two", favor_yes)]
    _, qualities = run(artifact, stages, evaluation)
    teacher, one, two = (100 * quality.quality for quality in qualities)
    assert teacher > one > two
    run(artifact, stages, evaluation, max_accuracy_drop=teacher - two)
    with pytest.raises(QualityError, match="two: accuracy"):
        run(artifact, stages, evaluation, max_accuracy_drop=max(teacher - one, one - two))


def test_labels_that_the_model_does_not_have_are_named(artifact, evaluation):
    other = replace(evaluation, labels=["no"] * 79 + ["perhaps"])
    with pytest.raises(InputError, match=r"eval\.csv: label 'perhaps' is not one of .*\(no, yes\)"):
        run(artifact, [], other)


def test_a_mistake_of_the_user_inside_a_stage_stays_one(artifact, evaluation):
    with pytest.raises(InputError, match="--trim-vocabulary 9: give at least 85"):
        run(artifact, [trim_to(9)], evaluation)


@pytest.mark.parametrize(
    ("architecture", "shape"), [("Bert", {}), ("Roberta", {"max_position_embeddings": 66})]
)
def test_more_tokens_than_positions_are_refused(
    artifact, evaluation, make_teacher, architecture, shape
):
    model = make_teacher(architecture, labels=NAMES, **shape)
    long = replace(evaluation, texts=["cat " * 200] * 80)
    with pytest.raises(InputError, match="--max-length 65: the teacher has 64 positions"):
        run(replace(artifact, model=model, max_length=65), [export_stage()], long)


def test_a_trimmed_model_has_an_embedding_for_every_token(artifact, evaluation):
    last, _ = run(artifact, [trim_to(90), export_stage()], evaluation)
    assert last.model.config.vocab_size == 90
    assert np.isfinite(last.logits(evaluation)).all()


def test_a_kept_model_is_a_directory_of_its_own(artifact, evaluation):
    transformers = pytest.importorskip("transformers")
    last, _ = run(artifact, [trim_to(90)], evaluation)
    (directory,) = artifact.work.glob("trim_vocabulary-*/model")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory)
    assert (
        model.config.vocab_size == last.model.config.vocab_size < artifact.model.config.vocab_size
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    encoded = tokenizer(evaluation.texts, truncation=True, max_length=last.max_length)
    expected = last.tokenize(evaluation).ids.tolist()
    assert [token for row in encoded["input_ids"] for token in row] == expected


@pytest.mark.parametrize("has_types", [True, False])
def test_the_tokenizer_of_a_kept_model_gives_the_types_that_the_teacher_gives(
    artifact, evaluation, has_types
):
    if not has_types:
        parts = json.loads(artifact.tokenizer_json)
        parts["post_processor"] = without_types(parts["post_processor"])
        artifact = replace(artifact, tokenizer_json=json.dumps(parts))
    last, _ = run(artifact, [trim_to(90)], evaluation)
    (directory,) = artifact.work.glob("trim_vocabulary-*/model")
    pairs = [evaluation.texts[:5], evaluation.texts[5:10]]
    expected = Tokenizer(last.tokenizer_json, max_length=32).encode(*pairs)
    read = Tokenizer(load_tokenizer(directory)[0], max_length=32).encode(*pairs)
    assert read.ids.tolist() == expected.ids.tolist()
    assert read.second_lengths_N.tolist() == expected.second_lengths_N.tolist()
    assert bool(read.second_lengths_N.any()) == has_types


def test_the_artifact_that_went_in_is_not_changed(artifact, evaluation):
    before_NC = artifact.logits(evaluation)
    run(artifact, [trim_to(90), export_stage()], evaluation)
    np.testing.assert_array_equal(artifact.logits(evaluation), before_NC)


def test_where_results_are_kept_is_known_without_running_anything(artifact, evaluation):
    """A stage that measures first is found again by what it measured."""
    measured = replace(stage("measured"), measure=lambda artifact, on_progress: {"seconds": 0.25})
    stages = [trim_to(90), measured, export_stage()]
    first, *unknown = stage_directories(artifact, stages)
    assert not any(is_kept(directory) for directory in (first, *unknown))
    run(artifact, stages, evaluation)
    directories = stage_directories(artifact, stages)
    assert directories[0] == first and directories[1:] != unknown
    assert all(is_kept(directory) for directory in directories)


def test_outputs_for_the_evaluation_rows_are_kept_with_each_stage(artifact, evaluation):
    gate = QualityGate(artifact, evaluation, EVAL, max_accuracy_drop=100)
    turned, _ = run_recipe(artifact, [stage("turn", negate_logits)], gate)
    kept_NC = gate.outputs("turn", turned)
    np.testing.assert_array_equal(kept_NC, turned.logits(evaluation))
    certainty = gate.certainty(kept_NC)
    low, high = certainty.drop_interval
    assert low < 50 < high
    assert not certainty.is_within_noise_of_teacher
    assert certainty.is_within_noise_of_drop(50) and not certainty.is_within_noise_of_drop(5)
    same = gate.certainty(gate.outputs("teacher", artifact))
    assert same.drop_interval == (0, 0) and same.is_within_noise_of_teacher
