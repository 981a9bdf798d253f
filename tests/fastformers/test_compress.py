import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers import Scorer, open_bundle
from fastformers.errors import InputError, QualityError
from fastformers.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.compress import CompressConfig, compress  # noqa: E402
from fastformers.evaluate import teacher_logits  # noqa: E402
from fastformers.export import load_teacher  # noqa: E402

LABELS = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def teacher(save_teacher, tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher") / "tiny-bert", labels=LABELS)


@pytest.fixture(scope="module")
def files(teacher, tokenizer_json, make_texts, tmp_path_factory):
    """A training and an evaluation file, labelled by the teacher; every fifth label is wrong."""
    folder = tmp_path_factory.mktemp("files")
    model = load_teacher(teacher)
    for seed, name in enumerate(("train.parquet", "eval.parquet")):
        texts = make_texts(120, seed=seed)
        rows = Tokenizer(tokenizer_json, max_length=64).encode(texts)
        classes_N = teacher_logits(model, rows).argmax(axis=1)
        assert len(set(classes_N.tolist())) == 3
        classes_N[::5] = (classes_N[::5] + 1) % 3
        labels = [LABELS[index] for index in classes_N]
        columns = {"text": texts, "pair": texts[::-1], "label": labels}
        pyarrow.parquet.write_table(pa.table(columns), folder / name)
    return folder


@pytest.fixture
def configure(teacher, files, tmp_path):
    def make(**changes):
        paths = {"train": files / "train.parquet", "eval": files / "eval.parquet"}
        return CompressConfig(
            **{"teacher": teacher, **paths, "output": tmp_path / "out" / "bundle", **changes}
        )

    return make


def accuracy_of(scorer, path, *, limit=None):
    columns = pyarrow.parquet.read_table(path).to_pydict()
    pairs = list(zip(columns["text"], columns["pair"], strict=True))
    predicted = scorer.score(pairs if scorer.bundle.text_pairs else columns["text"]).labels
    right = [a == b for a, b in zip(predicted, columns["label"], strict=True)]
    return sum(right) / len(right)


def test_a_compressed_bundle_proves_what_it_says(configure, files):
    seen = []
    written = compress(configure(trim_vocabulary=104, max_accuracy_drop=20), seen.append)
    bundle = open_bundle(written.path)
    assert bundle == written
    assert (bundle.labels, bundle.max_length, bundle.precision) == (LABELS, 64, "int8")
    assert not bundle.text_pairs
    assert bundle.input_names == ("input_ids",)

    names = ["teacher", "trim_vocabulary", "export", "quantize"]
    assert [quality.stage for quality in bundle.stages] == names
    assert list(bundle.stages) == seen
    assert (bundle.stages[0].accuracy, bundle.stages[0].num_rows) == (0.8, 120)
    assert bundle.stages[2].agreement == 1.0
    assert bundle.stages[3].model_bytes == bundle.model_path.stat().st_size

    scorer = Scorer(bundle)
    assert accuracy_of(scorer, files / "eval.parquet") == bundle.stages[3].accuracy
    assert bundle.stages[3].accuracy >= 0.6

    profile = bundle.cost_profile
    assert (profile.lengths[0], profile.lengths[-1]) == (2, 64)
    assert min(profile.seconds_per_row) > 0
    provenance = bundle.provenance
    assert (provenance["teacher"], provenance["eval"]) == ("tiny-bert", "eval.parquet")
    assert provenance["torch"] == torch.__version__
    assert provenance["transformers"] == transformers.__version__


def test_a_float_bundle_of_pairs_has_the_logits_of_the_teacher(
    configure, files, teacher, tokenizer_json
):
    bundle = compress(configure(precision="float32", text_pair_column="pair", max_length=32))
    assert (bundle.text_pairs, bundle.precision, bundle.max_length) == (True, "float32", 32)
    assert bundle.input_names == ("input_ids", "token_type_ids")
    assert [quality.stage for quality in bundle.stages] == ["teacher", "export"]
    scorer = Scorer(bundle)
    assert accuracy_of(scorer, files / "eval.parquet") == bundle.stages[1].accuracy

    pairs = [("the cat", "good film"), ("a dog ran fast", "bad " * 60)]
    rows = Tokenizer(tokenizer_json, max_length=32).encode(*zip(*pairs, strict=True))
    expected_NC = teacher_logits(load_teacher(teacher), rows)
    assert scorer.score(pairs).logits_NC == pytest.approx(expected_NC, abs=1e-4)


def test_a_model_that_lost_too_much_is_not_written(configure, tmp_path, monkeypatch):
    from fastformers import recipe

    quantized = []

    def lose_a_row(quality, **limits):
        quantized.append(limits["stage"])
        if limits["stage"] == "quantize":
            check_quality(type(quality)(accuracy=quality.accuracy - 0.02, agreement=1.0), **limits)

    check_quality = recipe.check_quality
    monkeypatch.setattr(recipe, "check_quality", lose_a_row)
    with pytest.raises(QualityError, match=r"quantize: .* more than --max-accuracy-drop 0"):
        compress(configure(max_accuracy_drop=0))
    assert quantized == ["teacher", "export", "quantize"]
    assert list(tmp_path.rglob("*")) == []


def test_only_so_many_evaluation_rows_are_used(configure):
    seen = []
    compress(configure(precision="float32", eval_limit=10), seen.append)
    assert [quality.num_rows for quality in seen] == [10, 10]


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("Bert", {}),
        ("Roberta", {"max_position_embeddings": 66, "pad_token_id": 1}),  # two of them never used
        ("MPNet", {"max_position_embeddings": 66}),
        ("DebertaV2", {"relative_attention": True, "pos_att_type": "p2c|c2p"}),
        ("ModernBert", {"local_attention": 8, "pad_token_id": 0}),
    ],
)
def test_without_a_length_the_model_says_how_long_a_text_may_be(
    configure, save_teacher, tmp_path, architecture, shape
):
    path = save_teacher(tmp_path / "teacher", architecture, labels=LABELS, **shape)
    long_texts = {"text": ["cat " * 200, "dog " * 200], "label": ["neutral", "positive"]}
    pyarrow.parquet.write_table(pa.table(long_texts), tmp_path / "long.parquet")
    long_file = tmp_path / "long.parquet"
    bundle = compress(configure(teacher=path, train=long_file, eval=long_file, precision="float32"))
    assert bundle.max_length == 64


def test_a_length_beyond_the_models_positions_is_refused(configure, tmp_path):
    pyarrow.parquet.write_table(
        pa.table({"text": ["cat " * 200], "label": ["neutral"]}), tmp_path / "long.parquet"
    )
    with pytest.raises(InputError, match="--max-length 65: the teacher has 64 positions"):
        compress(configure(eval=tmp_path / "long.parquet", max_length=65))


def test_an_output_that_is_no_bundle_is_refused_before_any_work(configure, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a bundle"):
        compress(configure(output=tmp_path), lambda quality: pytest.fail("worked"))


def test_a_teacher_without_tokenizer_is_refused(configure, make_teacher, tmp_path):
    make_teacher(labels=LABELS).save_pretrained(tmp_path / "bare")
    with pytest.raises(InputError, match=r"bare: has no tokenizer\.json"):
        compress(configure(teacher=tmp_path / "bare", max_accuracy_drop=100))


def test_another_label_is_named(configure, tmp_path):
    columns = {"text": ["the cat", "a dog"], "label": ["neutral", "indifferent"]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other\.parquet: label 'indifferent' is not one of"):
        compress(configure(eval=tmp_path / "other.parquet"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_accuracy_drop": -0.5}, "--max-accuracy-drop -0.5: give 0 or more"),
        ({"max_length": 3}, "--max-length 3: give at least 4"),
        ({"eval_limit": 0}, "--eval-limit 0: give at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(configure, changes, message):
    with pytest.raises(InputError, match=message):
        configure(**changes)
