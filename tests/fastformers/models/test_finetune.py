import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastformers.data.examples import Examples
from fastformers.errors import ClaimedError, InputError, StageError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from safetensors.torch import load_file, save_file  # noqa: E402

from fastformers.compression.pruning.prune import prune_model  # noqa: E402
from fastformers.compression.pruning.pruning_plan import PruningPlan  # noqa: E402
from fastformers.inference.tasks import Task  # noqa: E402
from fastformers.inference.tokenizer import Tokenizer  # noqa: E402
from fastformers.models import finetune as finetune_module  # noqa: E402
from fastformers.models import trainer  # noqa: E402
from fastformers.models.finetune import finetune  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.loading import class_names, load_model  # noqa: E402
from fastformers.models.model_files import digest_checkpoint  # noqa: E402
from fastformers.models.training_config import FinetuneConfig  # noqa: E402

ONE_EPOCH = {"epochs": 1, "batch_rows": 8}


def configure(*, max_length=16, num_layers=None, **training):
    """A config with other settings of the training."""
    training = replace(FinetuneConfig.training, **training)
    return FinetuneConfig(training=training, max_length=max_length, num_layers=num_layers)


@pytest.fixture(scope="module")
def encoder(save_teacher, tmp_path_factory):
    """An encoder of random weights, without a head."""
    return save_teacher(tmp_path_factory.mktemp("encoder"), encoder_only=True)


@pytest.fixture
def train(make_texts):
    """Examples of a trivial task: whether a text says good or bad."""
    texts = [text.replace("good", "cat").replace("bad", "dog") for text in make_texts(96)]
    labels = ["bright" if row % 2 else "dull" for row in range(96)]
    marks = {"bright": "good", "dull": "bad"}
    texts = [f"{marks[label]} {text}" for text, label in zip(texts, labels, strict=True)]
    return Examples(texts=texts, text_pairs=None, labels=labels)


def accuracy_of(path, examples):
    model = load_model(path)
    tokenizer_json = (path / "tokenizer.json").read_text()
    rows = Tokenizer(tokenizer_json, max_length=16).encode(examples.texts)
    classes_N = predict_logits(model, rows).argmax(axis=1)
    names = class_names(model.config)
    return np.mean([names[c] == label for c, label in zip(classes_N, examples.labels, strict=True)])


def test_a_trivial_task_is_learned_by_the_first_layer(encoder, train, tmp_path):
    config = configure(epochs=20, learning_rate=3e-3, num_layers=1)
    names = finetune(encoder, train, tmp_path / "train.csv", tmp_path / "teacher", config).labels
    assert names == ["bright", "dull"]
    model = load_model(tmp_path / "teacher")
    assert class_names(model.config) == ("bright", "dull")
    assert model.config.num_hidden_layers == len(model.bert.encoder.layer) == 1
    assert accuracy_of(tmp_path / "teacher", train) >= 0.95
    saved = json.loads((tmp_path / "teacher" / "tokenizer_config.json").read_text())
    assert saved["model_max_length"] == 16


def test_labels_get_the_names_that_were_given(encoder, train, tmp_path, hub):
    hub.add("org/encoder", encoder)
    config = replace(configure(**ONE_EPOCH, num_layers=1), label_names=("hell,matt",))
    said = []
    result = finetune(
        Path("org/encoder"),
        train,
        tmp_path / "train.csv",
        tmp_path / "teacher",
        config,
        select=train.take(range(40)),
        evaluation=train,
        on_labels=said.append,
    )
    assert result.labels == ["hell", "matt"]
    assert class_names(load_model(tmp_path / "teacher").config) == ("hell", "matt")
    assert said == ["2 classes by name: 'bright' 48, 'dull' 48; called 'hell', 'matt'"]
    assert result.best.quality > 0.3  # measured by the labels of the file
    assert result.interval[0] <= result.quality <= result.interval[1]
    assert result.quality == accuracy_of(
        tmp_path / "teacher",
        replace(train, labels=[["matt", "hell"][row % 2] for row in range(96)]),
    )
    with pytest.raises(InputError, match="--label-names: 1 name for 2 labels"):
        finetune(
            encoder, train, tmp_path / "t", tmp_path / "o", replace(config, label_names=("a",))
        )


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [
        ("Bert", "bert.encoder.layer"),
        ("DistilBert", "distilbert.transformer.layer"),
        ("MPNet", "mpnet.encoder.layer"),
        ("DebertaV2", "deberta.encoder.layer"),
        ("ModernBert", "model.layers"),
    ],
)
def test_the_layers_kept_are_the_first_ones_as_they_were(
    save_teacher, train, tmp_path, architecture, layers
):
    shapes = {
        "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
        "ModernBert": {"pad_token_id": 0},
    }
    path = save_teacher(tmp_path / "classifier", architecture, **shapes.get(architecture, {}))
    config = configure(**ONE_EPOCH, num_layers=1, learning_rate=1e-12)
    finetune(path, train, tmp_path / "train.csv", tmp_path / "teacher", config)
    before = load_model(path).get_submodule(layers)
    after = load_model(tmp_path / "teacher").get_submodule(layers)
    assert (len(before), len(after)) == (2, 1)
    for old, new in zip(before[0].parameters(), after[0].parameters(), strict=True):
        torch.testing.assert_close(old, new, atol=1e-6, rtol=0)


@pytest.fixture
def pruned(make_teacher, save_teacher, tmp_path):
    """A teacher that lost heads and neurons, other ones in each layer."""
    path = save_teacher(tmp_path / "pruned", labels=("a", "b", "c"))
    heads = tuple(map(np.array, ([0, 1], [1])))
    plan = PruningPlan(heads=heads, neurons=(np.arange(16), np.arange(32)))
    prune_model(make_teacher(labels=("a", "b", "c")), plan).save_pretrained(path)
    return path


@pytest.mark.parametrize("num_layers", [None, 1])
def test_a_pruned_model_learns_another_task_with_the_weights_that_it_has(
    pruned, train, tmp_path, num_layers
):
    config = configure(**ONE_EPOCH, num_layers=num_layers, learning_rate=1e-12)
    finetune(pruned, train, tmp_path / "train.csv", tmp_path / "teacher", config)
    before, after = (load_model(path).bert.encoder.layer for path in (pruned, tmp_path / "teacher"))
    assert len(after) == (num_layers or 2)
    for old, new in zip(before[: len(after)].parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(old, new, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (
            lambda weights: weights.pop("bert.encoder.layer.1.output.dense.bias"),
            r"1\.output\.dense",
        ),
        (
            lambda weights: weights.update({"bert.embeddings.LayerNorm.bias": torch.zeros(16)}),
            r"embeddings\.LayerNorm\.bias$",
        ),
    ],
    ids=["missing", "of another shape"],
)
def test_an_encoder_without_its_own_weights_is_refused(save_teacher, train, tmp_path, change, lost):
    path = save_teacher(tmp_path / "encoder")
    weights = load_file(path / "model.safetensors")
    change(weights)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"encoder: no weights of the shape .* for bert.*{lost}"):
        finetune(path, train, tmp_path / "t.csv", tmp_path / "teacher", configure(**ONE_EPOCH))


def test_an_interrupted_run_resumes_and_ends_as_if_it_had_not_been(
    encoder, train, tmp_path, monkeypatch
):
    read = finetune_module._Rows.__getitem__
    rows_read = []

    def read_and_count(self, row):
        rows_read.append(row)
        if len(rows_read) == power_cut:
            raise KeyboardInterrupt
        return read(self, row)

    monkeypatch.setattr(trainer, "SAVE_STEPS", 4)
    monkeypatch.setattr(finetune_module._Rows, "__getitem__", read_and_count)

    def run(name):
        rows_read.clear()
        config = configure(**ONE_EPOCH, learning_rate=1e-3)
        finetune(encoder, train, tmp_path / "train.csv", tmp_path / name, config)
        return load_model(tmp_path / name).state_dict()

    power_cut = None
    expected = run("whole")
    num_rows = len(rows_read)

    power_cut = num_rows - 12  # in the batch before the last; the loader is one batch ahead
    with pytest.raises(KeyboardInterrupt):
        run("resumed")
    assert not (tmp_path / "resumed" / "config.json").exists()
    [checkpoint] = (tmp_path / ".resumed.work").glob("*/checkpoint-8")
    half_written = checkpoint.with_name("checkpoint-9")  # as a full disk leaves one
    half_written.mkdir()
    (half_written / "model.safetensors").write_bytes(b"half")

    power_cut = None
    resumed = run("resumed")
    assert len(rows_read) <= num_rows - 64  # without the eight before the checkpoint
    for name, weight in expected.items():
        torch.testing.assert_close(resumed[name], weight, atol=1e-5, rtol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resumed", "whole"]


def test_the_best_epoch_is_kept_though_later_ones_are_worse(encoder, train, tmp_path, monkeypatch):
    qualities = iter([0.5, 0.75, 0.25])
    states = []

    def evaluator(task, outputs_NC, targets_N, **options):
        states.append(outputs_NC)
        assert outputs_NC.shape == (40, 2) and len(targets_N) == 40
        return next(qualities)

    monkeypatch.setattr(Task, "measure", evaluator)
    epochs = []
    held_out = train.take(range(40))
    result = finetune(
        encoder,
        train,
        tmp_path / "train.csv",
        tmp_path / "teacher",
        configure(epochs=3, learning_rate=5e-3),
        select=held_out,
        on_epoch=epochs.append,
    )
    assert [(epoch.number, epoch.quality) for epoch in epochs] == [(1, 0.5), (2, 0.75), (3, 0.25)]
    assert result.best == epochs[1] and result.quality is None
    model = load_model(tmp_path / "teacher")
    tokenizer_json = (tmp_path / "teacher" / "tokenizer.json").read_text()
    kept_NC = predict_logits(model, Tokenizer(tokenizer_json, max_length=16).encode(held_out.texts))
    # The evaluation is in bf16 where training is; its rounding is below the epochs' differences.
    to_first, to_kept, to_last = (np.abs(kept_NC - state_NC).max() for state_NC in states)
    assert to_kept < 0.06 < min(to_first, to_last)


@pytest.mark.parametrize("chooses", [True, False])
def test_a_training_that_diverges_replaces_no_teacher(encoder, train, tmp_path, chooses):
    where = (encoder, train, tmp_path / "train.csv", tmp_path / "teacher")
    finetune(*where, configure(**ONE_EPOCH))
    config = configure(epochs=2, batch_rows=8, learning_rate=1e30)
    with pytest.raises(StageError, match="fine-tune: the training diverged; lower --learning-rate"):
        finetune(*where, config, select=train if chooses else None)
    model = load_model(tmp_path / "teacher")
    assert all(bool(weights.isfinite().all()) for weights in model.parameters())


def test_the_best_epoch_outlives_an_interruption(encoder, train, tmp_path, monkeypatch):
    seen = []

    def evaluator(task, outputs_NC, targets_N, **options):
        seen.append(outputs_NC)
        if power_cut and len(seen) == 2:
            raise KeyboardInterrupt
        return 1 / len(seen)

    def run(name):
        config = configure(epochs=2, learning_rate=1e-3, batch_rows=8)
        held_out = train.take(range(40))
        finetuned = finetune(
            encoder, train, tmp_path / "t.csv", tmp_path / name, config, select=held_out
        )
        return finetuned.best

    monkeypatch.setattr(trainer, "SAVE_STEPS", 4)
    monkeypatch.setattr(Task, "measure", evaluator)
    power_cut = True
    with pytest.raises(KeyboardInterrupt):
        run("resumed")
    power_cut = False
    assert run("resumed") == trainer.Epoch(number=1, quality=1.0)


def test_a_finished_training_is_not_done_again_but_another_one_is(
    encoder, train, tmp_path, monkeypatch
):
    trained = []
    whole = finetune_module.train_model

    def count(*arguments, **options):
        trained.append(options["what"])
        return whole(*arguments, **options)

    monkeypatch.setattr(finetune_module, "train_model", count)
    config = configure(epochs=20, learning_rate=3e-3, num_layers=1)
    output = tmp_path / "teacher"

    def run(examples, **others):
        return finetune(encoder, examples, tmp_path / "t.csv", output, config, **others)

    first = run(train)
    assert run(train) == first
    assert first.quality is None
    digest = digest_checkpoint(output)
    for evaluation in (train, train.take(range(50))):  # other rows to judge on change no teacher
        judged = run(train, evaluation=evaluation)
        assert judged.quality == accuracy_of(output, evaluation)
        assert run(train, evaluation=evaluation) == judged
    assert digest_checkpoint(output) == digest
    assert trained == ["fine-tune"]

    swapped = {"bright": "dull", "dull": "bright"}
    corrected = replace(train, labels=[swapped[label] for label in train.labels])
    run(corrected)
    run(corrected, select=train)
    assert trained == ["fine-tune"] * 3
    run(corrected)
    assert accuracy_of(output, corrected) >= 0.95
    assert run(corrected, classes=["dull", "bright"]).labels == ["dull", "bright"]
    assert not [path for path in output.rglob("*") if path.is_dir() or "optim" in path.name]


def test_another_run_of_the_same_output_is_refused_and_the_first_one_goes_on(
    encoder, train, tmp_path
):
    refused = []

    def begin(what, done, total):
        with pytest.raises(ClaimedError, match=r"--output .*teacher: another run works on it"):
            finetune(*where, configure(**ONE_EPOCH, seed=1))
        refused.append(done)

    where = (encoder, train, tmp_path / "train.csv", tmp_path / "teacher")
    finetune(*where, configure(**ONE_EPOCH), begin)
    assert refused[-1] == 12
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_an_output_that_no_training_made_is_refused(encoder, train, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.txt").write_text("years of work")
    for output, message in (
        (tmp_path / "thesis", "thesis: holds something that finetune did not make"),
        (encoder, "is the encoder; give a directory of its own"),
    ):
        with pytest.raises(InputError, match=message):
            finetune(encoder, train, tmp_path / "t.csv", output, configure(**ONE_EPOCH))
    assert (tmp_path / "thesis" / "text.txt").read_text() == "years of work"


def test_no_more_tokens_are_asked_for_than_the_encoder_has_positions(save_teacher, train, tmp_path):
    long = replace(train, texts=[f"{text} the" * 30 for text in train.texts])
    shape = {"pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": 34}
    path = save_teacher(tmp_path / "roberta", "Roberta", encoder_only=True, **shape)
    for max_length in (33, 34):
        with pytest.raises(
            InputError, match=rf"^--max-length {max_length}: the encoder has 32 pos"
        ):
            finetune(
                path, long, tmp_path / "t.csv", tmp_path / "out", configure(max_length=max_length)
            )
    assert not (tmp_path / "out").exists()
    config = configure(max_length=None, **ONE_EPOCH)
    finetune(path, long, tmp_path / "t.csv", tmp_path / "out", config)
    saved = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert saved["model_max_length"] == 32


def test_token_types_that_a_model_does_not_have_are_left_out(save_teacher, train, tmp_path):
    """As for a RoBERTa with a WordPiece tokenizer: its own pipeline reads pairs afterwards."""
    shape = {"pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": 66}
    path = save_teacher(tmp_path / "roberta", "Roberta", encoder_only=True, **shape)
    pairs = replace(train, text_pairs=train.texts[::-1])
    finetune(path, pairs, tmp_path / "t.csv", tmp_path / "teacher", configure(**ONE_EPOCH))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "teacher")
    encoded = tokenizer(["the cat"], ["a dog"], return_tensors="pt")
    assert sorted(encoded) == ["attention_mask", "input_ids"]
    assert load_model(tmp_path / "teacher")(**encoded).logits.shape == (1, 2)


def test_a_model_that_no_graph_can_have_is_refused_before_training(save_teacher, train, tmp_path):
    path = save_teacher(tmp_path / "bert", encoder_only=True, hidden_act="silu")
    with pytest.raises(InputError, match=r"bert: hidden activation 'silu' is not one of gelu"):
        finetune(path, train, tmp_path / "t.csv", tmp_path / "out", configure(**ONE_EPOCH))


def test_a_label_that_was_not_trained_on_is_found_before_training(encoder, train, tmp_path):
    held_out = Examples(texts=["the cat"], text_pairs=None, labels=["brilliant"])
    with pytest.raises(InputError, match=r"held-out\.csv: label 'brilliant' is not one of"):
        finetune(
            encoder,
            train,
            tmp_path / "train.csv",
            tmp_path / "out",
            configure(**ONE_EPOCH),
            evaluation=held_out,
            eval_path=tmp_path / "held-out.csv",
        )
    assert not (tmp_path / "out").exists()


def test_pairs_and_whole_number_labels_are_learned_from(encoder, train, tmp_path):
    pairs = Examples(
        texts=["the cat"] * 96, text_pairs=train.texts, labels=[row % 3 for row in range(96)]
    )
    names = finetune(
        encoder, pairs, tmp_path / "train.csv", tmp_path / "teacher", configure(**ONE_EPOCH)
    ).labels
    assert names == ["0", "1", "2"]
    assert load_model(tmp_path / "teacher").config.num_labels == 3


def test_one_label_is_not_enough(encoder, train, tmp_path):
    same = Examples(texts=train.texts, text_pairs=None, labels=["dull"] * 96)
    with pytest.raises(InputError, match=r"train\.csv: only one label \('dull'\)"):
        finetune(encoder, same, tmp_path / "train.csv", tmp_path / "out", configure())
    assert not (tmp_path / "out").exists()


def test_more_layers_than_there_are_are_refused(encoder, train, tmp_path):
    with pytest.raises(InputError, match="--num-layers 3: give 1 to 2"):
        finetune(
            encoder,
            train,
            tmp_path / "train.csv",
            tmp_path / "out",
            configure(**ONE_EPOCH, num_layers=3),
        )


def test_an_architecture_that_could_not_be_scored_is_refused(save_teacher, train, tmp_path):
    path = save_teacher(tmp_path / "albert", "Albert", encoder_only=True, embedding_size=16)
    with pytest.raises(InputError, match="albert: architecture 'albert' is not one of bert, "):
        finetune(path, train, tmp_path / "train.csv", tmp_path / "out", configure(**ONE_EPOCH))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0.0}, "--epochs 0: give more than 0"),
        ({"learning_rate": -0.1}, "--learning-rate -0.1: give more than 0"),
        ({"batch_rows": 0}, "--batch-rows 0: give at least 1"),
        ({"max_length": 7}, "--max-length 7: give at least 8"),
        ({"num_layers": 0}, "--num-layers 0: give at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_their_flag(settings, message):
    with pytest.raises(InputError, match=message):
        configure(**settings)
