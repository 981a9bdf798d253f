"""Every task through the whole offline flow: fine-tune, compress, score what was written."""

import gzip
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fastformers import Scorer
from fastformers.data.examples import Columns
from fastformers.errors import InputError
from fastformers.inference.metrics import rank_agreement, spearman
from fastformers.inference.tasks import EMBEDDING, TASKS

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from fastformers.compression.compress import compress  # noqa: E402
from fastformers.compression.compress_config import CompressConfig  # noqa: E402
from fastformers.compression.recipe_config import (  # noqa: E402
    DistillConfig,
    PruneConfig,
    QuantizeConfig,
    RecipeConfig,
    StudentConfig,
    TrimConfig,
)
from fastformers.compression.students.student import cut_layers, spread_layers  # noqa: E402
from fastformers.data.superglue import READERS, load_labeled  # noqa: E402
from fastformers.jobs.compress import main as compress_main  # noqa: E402
from fastformers.jobs.finetune import main as finetune_main  # noqa: E402
from fastformers.models.finetune import finetune  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.loading import load_model, task_of  # noqa: E402
from fastformers.models.sentence_encoder import SentenceEncoder  # noqa: E402
from fastformers.models.training_config import FinetuneConfig, TrainingConfig  # noqa: E402

WORDS = ("good", "bad", "fast")
FLOAT32 = RecipeConfig(quantize=QuantizeConfig(precision="float32"))


@pytest.fixture(scope="module")
def encoder(save_teacher, tmp_path_factory):
    """An encoder of random weights, without a head."""
    return save_teacher(tmp_path_factory.mktemp("encoder"), encoder_only=True)


@pytest.fixture(scope="module")
def texts(make_texts):
    """Texts that begin with one to three of the words that the labels are made of."""
    rng = np.random.default_rng(0)
    short = make_texts(64, max_words=6)
    plain = [" ".join(word for word in text.split() if word not in WORDS) for text in short]
    return [" ".join([*rng.choice(WORDS, rng.integers(1, 4)), text]) for text in plain]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_labeled(path, texts, labels):
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    return write(path, rows)


def config_of(teacher, file, tmp_path, **settings):
    """Config that compresses with one file for training and evaluation, whatever is lost."""
    return CompressConfig(
        teacher=teacher,
        train=file,
        eval=file,
        output=tmp_path / "bundle",
        max_accuracy_drop=100,
        **settings,
    )


def run_flow(
    encoder,
    path,
    tmp_path,
    *,
    task=None,
    epochs=1.0,
    recipe=FLOAT32,
    num_layers=1,
    **named,
):
    """Fine-tune on a file and compress with it; returns the bundle, examples and predictions."""
    columns = Columns(**named)
    train = load_labeled(path, columns)
    config = FinetuneConfig(
        training=TrainingConfig(epochs=epochs, batch_rows=8, learning_rate=3e-3),
        max_length=32,
        num_layers=num_layers,
    )
    names = finetune(
        encoder, train, path, tmp_path / "teacher", config, task=task and TASKS[task]
    ).labels
    result = compress(
        config_of(tmp_path / "teacher", path, tmp_path, columns=columns, recipe=recipe)
    )
    pairs = train.text_pairs and list(zip(train.texts, train.text_pairs, strict=True))
    return SimpleNamespace(
        bundle=result.bundle,
        names=names,
        examples=train,
        predictions=Scorer(result.bundle).score(pairs or train.texts),
    )


def test_several_labels(encoder, texts, tmp_path):
    labels = [sorted(set(WORDS) & set(text.split()) - {"fast"}) for text in texts]
    assert [] in labels and ["bad", "good"] in labels
    path = write_labeled(tmp_path / "t.jsonl", texts, labels)
    flow = run_flow(encoder, path, tmp_path, epochs=10, recipe=RecipeConfig())
    bundle, predictions = flow.bundle, flow.predictions
    assert (bundle.task.name, bundle.metric) == ("multi-label-classification", "micro-F1")
    assert bundle.labels == ("bad", "good") == tuple(flow.names)
    both = [(set(said), set(true)) for said, true in zip(predictions.labels, labels, strict=True)]
    f1 = 2 * sum(len(a & b) for a, b in both) / sum(len(a) + len(b) for a, b in both)
    assert bundle.stages[-1].quality == pytest.approx(f1)
    assert f1 > 0.8  # the model has learned
    assert predictions.probabilities.shape == (64, 2)
    is_said = predictions.probabilities >= 0.5
    assert [[bundle.labels[c] for c in np.flatnonzero(row)] for row in is_said] == (
        predictions.labels
    )


def test_several_labels_in_a_csv_file(encoder, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "good film,a|b\nbad film,\nslow film,b\n" * 8)
    flow = run_flow(encoder, path, tmp_path, task="multi-label-classification")
    assert flow.bundle.labels == ("a", "b")
    assert flow.bundle.task.name == "multi-label-classification"


def test_codes_of_a_csv_file_are_the_classes_of_another_file_too(encoder, tmp_path, capsys):
    """`01` stays `01`, a number in a compressed file is the same code, and this is said first."""
    (tmp_path / "t.csv").write_text("text,label\n" + "good film,01\nbad film,02\nfilm,\n" * 8)
    rows = [{"text": "good", "label": 1}, {"text": "bad", "label": 2}]
    with gzip.open(tmp_path / "e.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    status = finetune_main(
        [
            *("--model", str(encoder), "--train", str(tmp_path / "t.csv"), "--epochs", "1"),
            *("--eval", str(tmp_path / "e.jsonl.gz"), "--output", str(tmp_path / "teacher")),
        ]
    )
    captured = capsys.readouterr()
    trained = json.loads(captured.out.splitlines()[-1])
    assert (status, trained["labels"], trained["rows"]) == (0, ["01", "02"], 16)
    shown = captured.err
    line = "labels: 2 classes by the numbers in the names: '01' 8, '02' 8\n"
    assert shown.index(line) < shown.index("kept the last epoch: no rows choose\n")
    assert "rows: 16 train, none choose (--select-share 0.1 gives 0 that --eval has not" in shown
    assert (trained["epoch"], trained["select_rows"]) == (None, 0)
    assert 100 * trained["quality"] in (0, 50, 100)  # of two rows
    assert "which chose nothing\n" in shown


def test_whole_fractions_are_classes_only_if_the_task_says_so(encoder, tmp_path, capsys):
    path = write_labeled(tmp_path / "t.jsonl", ["good film", "bad film"] * 4, [1.0, 2.0] * 4)
    flags = ["--model", str(encoder), "--train", str(path), "--output", str(tmp_path / "teacher")]
    assert finetune_main([*flags, "--epochs", "1"]) == 2
    assert "--task text-classification" in capsys.readouterr().err.splitlines()[-1]
    assert finetune_main([*flags, "--epochs", "1", "--task", "text-classification"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["1", "2"]


@pytest.mark.parametrize("task", [None, "regression"])
def test_regression(encoder, make_texts, tmp_path, task):
    """Labels may be fractions, or whole numbers if the task is given."""
    plain = (t.replace("good", "cat").replace("bad", "dog") for t in make_texts(64, max_words=8))
    texts = [f"{'good' if row % 2 else 'bad'} {text}" for row, text in enumerate(plain)]
    counts = [5 if row % 2 else 1 for row in range(64)]
    values = [count / 4 for count in counts] if task is None else counts
    path = write_labeled(tmp_path / "t.jsonl", texts, values)
    flow = run_flow(encoder, path, tmp_path, task=task, epochs=10 if task is None else 1)
    assert (flow.bundle.task.name, flow.bundle.metric) == ("regression", "Spearman")
    assert (flow.bundle.labels, flow.names, flow.bundle.num_outputs) == ((), [], 1)
    quality = flow.bundle.stages[-1].quality
    assert quality == spearman(flow.predictions.scores, np.array(values))
    if task is None:
        assert quality > 0.5  # the model has learned
    with pytest.raises(InputError, match="no labels: the bundle's task is regression"):
        _ = flow.predictions.labels


def test_choice(encoder, tmp_path):
    rows = [
        {"text": "the film", "one": a, "two": b, "three": c, "label": (a, b, c).index("good")}
        for a, b, c in [("good", "bad", "slow"), ("bad", "good", "a"), ("cat", "slow", "good")] * 8
    ]
    path = write(tmp_path / "t.jsonl", rows)
    choices = ("one", "two", "three")
    flow = run_flow(encoder, path, tmp_path, epochs=10, choices=choices, recipe=RecipeConfig())
    assert (flow.bundle.task.name, flow.bundle.metric) == ("multiple-choice", "accuracy")
    assert flow.bundle.text_pairs
    best = flow.predictions.scores.reshape(24, 3).argmax(axis=1)
    quality = flow.bundle.stages[-1].quality
    assert quality == pytest.approx(np.mean(best == [row["label"] for row in rows]))
    assert quality > 0.9
    with pytest.raises(InputError, match="its task is multiple-choice; students and pruning are"):
        run_flow(encoder, path, tmp_path / "again", choices=choices, recipe=STUDENT)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_embeddings(encoder, make_texts, tmp_path, precision):
    path = save_sentence_encoder(
        encoder, tmp_path / "sentence", pooling="mean", normalize=True, max_length=20
    )
    texts = make_texts(60)
    file = write(tmp_path / "t.jsonl", [{"text": text} for text in texts])
    recipe = RecipeConfig(
        quantize=QuantizeConfig(precision=precision), trim=TrimConfig(trim_vocabulary=104)
    )
    config = config_of(path, file, tmp_path, recipe=recipe)
    bundle = compress(config).bundle
    assert (bundle.task.name, bundle.metric) == ("embedding", "rank agreement")
    assert (bundle.labels, bundle.num_outputs, bundle.max_length) == ((), 32, 20)
    vectors = Scorer(bundle).score(texts).embeddings
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    tokenizer = bundle.load_tokenizer()
    model = load_model(path)
    with torch.no_grad():
        expected = np.concatenate(
            [
                model(input_ids=torch.tensor(tokenizer.encode([t]).ids[None].astype(int))).logits
                for t in texts
            ]
        )
    assert bundle.stages[0].quality == bundle.stages[0].agreement == pytest.approx(1)
    last = bundle.stages[-1]
    assert last.agreement == pytest.approx((vectors * expected).sum(axis=1).mean(), abs=1e-4)
    assert last.quality == pytest.approx(rank_agreement(vectors, expected), abs=1e-3)
    if precision == "float32":
        np.testing.assert_allclose(vectors, expected, atol=1e-4)
    else:
        assert 0.5 < last.quality < 1


def save_sentence_encoder(encoder, path, **settings):
    from transformers import AutoModel, AutoTokenizer

    SentenceEncoder(AutoModel.from_pretrained(encoder), **settings).save_pretrained(path)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(path)
    return path


STUDENT = RecipeConfig(
    student=StudentConfig(student_layers=1),
    prune=PruneConfig(prune_heads=0.5, prune_ffn=0.5, prune_epochs=20),
    quantize=QuantizeConfig(precision="float32"),
    distill=DistillConfig(training=TrainingConfig(epochs=20, learning_rate=3e-3, batch_rows=8)),
)


def qualities(bundle):
    """Quality by stage of a recipe with a pruned student."""
    names = [stage.stage for stage in bundle.stages]
    assert names == ["teacher", "distill", "prune", "export"]
    return [stage.quality for stage in bundle.stages]


def test_a_pruned_student_of_several_labels(encoder, texts, tmp_path):
    labels = [sorted({*WORDS} & {*text.split()} - {"fast"}) for text in texts]
    path = write_labeled(tmp_path / "t.jsonl", texts, labels)
    flow = run_flow(encoder, path, tmp_path, epochs=10, num_layers=2, recipe=STUDENT)
    teacher, *_, pruned = qualities(flow.bundle)
    assert (flow.bundle.task.name, flow.bundle.labels) == (
        "multi-label-classification",
        ("bad", "good"),
    )
    assert teacher > 0.8 and pruned > 0.8


def test_a_pruned_student_of_a_regression(encoder, texts, tmp_path):
    values = [float(text.split().count("good")) + 0.5 for text in texts]
    path = write_labeled(tmp_path / "t.jsonl", texts, values)
    flow = run_flow(encoder, path, tmp_path, epochs=10, num_layers=2, recipe=STUDENT)
    teacher, student, pruned, _ = qualities(flow.bundle)
    assert (flow.bundle.task.name, flow.bundle.num_outputs) == ("regression", 1)
    assert teacher > 0.6 and student > 0.6 and pruned > 0.5


@pytest.mark.parametrize("normalize", [True, False])
def test_a_pruned_student_of_an_embedding_model(encoder, make_texts, tmp_path, normalize):
    path = save_sentence_encoder(
        encoder, tmp_path / "sentence", pooling="mean", normalize=normalize
    )
    texts = make_texts(100, max_words=8)
    file = write(tmp_path / "t.jsonl", [{"text": text} for text in texts])
    config = config_of(path, file, tmp_path, work=tmp_path / "work", recipe=STUDENT)
    bundle = compress(config).bundle
    teacher, _, pruned, exported = qualities(bundle)
    rows = bundle.load_tokenizer().encode(texts)
    whole = load_model(path)
    cut = cut_layers(whole, spread_layers(2, 1))
    untrained = EMBEDDING.measure_agreement(
        *(predict_logits(model, rows) for model in (cut, whole))
    )
    # These are the training texts: a teacher of random weights says nothing general.
    assert teacher == 1
    mean_cosines = [stage.agreement for stage in bundle.stages]
    assert 1 - mean_cosines[2] < 0.5 * (1 - untrained)
    assert exported == pytest.approx(pruned, abs=1e-3)
    (kept,) = (tmp_path / "work").glob("prune-*/model")
    model = load_model(kept)  # it is a sentence-transformers directory again
    assert model.normalize == normalize
    assert model.config.pruned_layers == [{"num_heads": 1, "ffn_width": 32}]
    assert compress(config).bundle.stages[-1].quality == exported


STATIC = RecipeConfig(
    student=StudentConfig(student_layers=0),
    distill=DistillConfig(
        training=TrainingConfig(epochs=20, learning_rate=None, batch_rows=8), hard_weight=1
    ),
)


def test_static_vectors_learn_several_labels(encoder, texts, tmp_path):
    labels = [sorted({*WORDS} & {*text.split()} - {"fast"}) for text in texts]
    path = write_labeled(tmp_path / "t.jsonl", texts, labels)
    bundle = run_flow(encoder, path, tmp_path, recipe=STATIC).bundle
    assert bundle.stages[0].quality < 0.8 < 0.95 < bundle.stages[-1].quality


def test_static_vectors_learn_which_text_of_a_pair_has_a_word(encoder, tmp_path):
    pairs = [(a, b) for a in ("good", "bad", "good cat") for b in ("good", "bad", "bad dog")] * 8
    rows = [{"text": a, "pair": b, "label": "good" in a} for a, b in pairs]
    path = write(tmp_path / "t.jsonl", rows)
    flow = run_flow(encoder, path, tmp_path, recipe=STATIC, text_pair="pair")
    assert flow.bundle.input_names == ("input_ids", "token_type_ids")
    assert flow.bundle.stages[-1].quality == 1  # the mean of both cannot tell


@pytest.mark.parametrize("width", [None, 8])
def test_static_vectors_of_an_embedding_model(encoder, make_texts, tmp_path, width):
    path = save_sentence_encoder(encoder, tmp_path / "sentence", pooling="mean", normalize=True)
    texts = make_texts(100, max_words=8)
    file = write(tmp_path / "t.jsonl", [{"text": text} for text in texts])
    student = StudentConfig(student_layers=0, student_width=width)
    distill = replace(STATIC.distill, hard_weight=0)
    recipe = replace(STATIC, student=student, distill=distill)
    bundle = compress(config_of(path, file, tmp_path, recipe=recipe)).bundle
    assert (bundle.num_outputs, bundle.width) == (load_model(path).config.hidden_size, width or 32)
    assert bundle.stages[-1].agreement > 0.95


def test_what_an_embedding_model_cannot_have_is_refused(encoder, tmp_path):
    path = save_sentence_encoder(encoder, tmp_path / "sentence", pooling="first")
    file = write(tmp_path / "t.jsonl", [{"text": "a cat", "pair": "a dog"}] * 8)
    paths = {"teacher": path, "train": file, "eval": file, "output": tmp_path / "bundle"}
    with pytest.raises(InputError, match="sentence embeds single texts; leave the pair"):
        compress(CompressConfig(**paths, columns=Columns(text_pair="pair")))
    for student in (StudentConfig(student_width=16), StudentConfig(student=encoder)):
        with pytest.raises(InputError, match="give --student-layers, and no --student or"):
            compress(CompressConfig(**paths, recipe=RecipeConfig(student=student)))


def test_a_model_of_another_task_gets_a_new_head(encoder, texts, tmp_path):
    """Two labels, then three, then a choice, then a number: each starts from the one before."""
    rows = [
        {"text": text, "pair": "the cat", "two": i % 2, "three": i % 3, "number": i / 7}
        for i, text in enumerate(texts)
    ]
    path = write(tmp_path / "t.jsonl", rows)
    config = FinetuneConfig(training=replace(FinetuneConfig.training, epochs=0.5), max_length=16)
    before, tasks = encoder, []
    for name, columns in {
        "two": Columns(label="two"),
        "three": Columns(label="three"),
        "choice": Columns(label="two", choices=("pair", "text2")),
        "number": Columns(label="number"),
    }.items():
        if name == "choice":
            path = write(tmp_path / "c.jsonl", [{**row, "text2": "a dog"} for row in rows])
        train = load_labeled(path, columns)
        finetune(before, train, path, tmp_path / name, config)
        before = tmp_path / name
        model = load_model(before)
        tasks.append((task_of(model).name, model.classifier.out_features))
    assert tasks == [
        ("text-classification", 2),
        ("text-classification", 3),
        ("multiple-choice", 1),
        ("regression", 1),
    ]


def test_there_is_nothing_to_learn_without_labels(encoder, tmp_path):
    path = write(tmp_path / "t.jsonl", [{"text": "a cat"}] * 8)
    train = load_labeled(path, Columns(label=None))
    with pytest.raises(InputError, match="no labels to train on"):
        finetune(encoder, train, path, tmp_path / "teacher", FinetuneConfig())


def official_rows(name):
    """A dozen rows in the official format."""
    answers = [{"text": "the cat", "label": 1}, {"text": "a dog", "label": 0}]
    rows = {
        "BoolQ": {"question": "is it good", "passage": "it is a good film"},
        "RTE": {"premise": "the cat sat", "hypothesis": "a cat sat"},
        "CB": {"premise": "the cat sat", "hypothesis": "a cat sat"},
        "COPA": {"premise": "the cat", "choice1": "sat", "choice2": "ran", "question": "cause"},
        "WiC": {
            "sentence1": "the cat sat",
            "sentence2": "a cat ran",
            "start1": 4,
            "end1": 7,
            "start2": 2,
            "end2": 5,
        },
        "WSC": {
            "text": "the cat sat and it ran",
            "target": {
                "span1_index": 0,
                "span1_text": "the cat",
                "span2_index": 4,
                "span2_text": "it",
            },
        },
        "MultiRC": {
            "passage": {
                "text": "the cat sat on the mat",
                "questions": [{"question": "what sat", "answers": answers}],
            }
        },
        "ReCoRD": {
            "passage": {
                "text": "the cat sat on the mat",
                "entities": [{"start": 0, "end": 6}, {"start": 15, "end": 21}],
            },
            "qas": [{"query": "@placeholder ran", "answers": [{"text": "The cat"}]}],
        },
    }
    labels = {
        "RTE": ("entailment", "not_entailment"),
        "CB": ("entailment", "neutral", "contradiction"),
        "COPA": (0, 1),
    }.get(name, (True, False))
    for number in range(12):
        row = {**rows[name], "idx": number}
        yield (
            row if name in ("MultiRC", "ReCoRD") else {**row, "label": labels[number % len(labels)]}
        )


@pytest.mark.parametrize("name", READERS)
def test_each_superglue_task_runs_from_end_to_end(encoder, tmp_path, capsys, name):
    path = write(tmp_path / "train.jsonl", official_rows(name))
    files = ["--superglue", name, "--train", str(path), "--max-length", "32"]
    teacher, bundle = tmp_path / "teacher", tmp_path / "bundle"
    status = finetune_main(
        [*files, "--model", str(encoder), "--output", str(teacher), "--epochs", "1"]
    )
    trained = json.loads(capsys.readouterr().out.splitlines()[-1])
    task = "multiple-choice" if name == "COPA" else "text-classification"
    assert (status, trained["task"]) == (0, task)
    assert trained["rows"] == (24 if name in ("COPA", "MultiRC", "ReCoRD") else 12)

    status = compress_main(
        [
            *(*files, "--teacher", str(teacher), "--eval", str(path), "--output", str(bundle)),
            *("--max-accuracy-drop", "100", "--precision", "int8" if name == "CB" else "float32"),
        ]
    )
    captured = capsys.readouterr()
    report = json.loads(captured.out.splitlines()[-1])
    metric = "F1" if name == "ReCoRD" else "accuracy"
    assert (status, report["task"], report["metric"]) == (0, task, metric)
    others = {
        "COPA": set(),
        "MultiRC": {"macro-F1", "F1a", "exact match"},
        "ReCoRD": {"exact match"},
    }
    for stage in report["stages"]:
        assert stage["metric"] == metric
        assert set(stage["other_metrics"]) == others.get(name, {"macro-F1"})
        assert 0 <= stage["quality"] <= 1
    for shown in {metric, *report["stages"][0]["other_metrics"]}:
        assert shown in captured.err
    pairs = name != "WSC"
    text = ("the cat", "a dog") if pairs else "the cat"
    assert np.isfinite(Scorer(bundle).score([text]).logits_NC).all()
