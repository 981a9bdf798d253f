"""What `fastformers bench` measures: opened, made up, or refused."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from fastformers.benchmark.encoder_shapes import SHAPES_BY_NAME
from fastformers.errors import InputError
from fastformers.inference.bundle import open_bundle
from fastformers.jobs.benchmarks.subject import make_subject, open_subject


@pytest.fixture(scope="module")
def texts():
    return [f"the {'cat ' * (n % 9)}{n} ran" for n in range(40)]


def save_checkpoint(path, tokenizer_json, *, vocabulary=None, **shape):
    """A tiny classifier with a WordPiece tokenizer."""
    from tokenizers import Tokenizer

    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_str(tokenizer_json)
    if vocabulary:
        tokenizer.add_tokens(vocabulary)
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        **shape,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(path)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def teacher(tokenizer_json, tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("teacher") / "teacher", tokenizer_json)


@pytest.fixture
def written_models(monkeypatch):
    """Skip making the others' models, which takes 15 seconds; returns what was asked for."""
    baselines = pytest.importorskip("fastformers.benchmark.baselines")
    asked = []

    def write(model, rows, directory):
        asked.append(SimpleNamespace(model=model, rows=rows, stock_graph=directory / "stock.onnx"))
        return asked[-1]

    monkeypatch.setattr(baselines, "write_baseline_models", write)
    return asked


def subject(bundle_path, teacher=None, *, texts=(), scratch, sample_rows=10):
    return open_subject(
        bundle_path, teacher, texts=list(texts), sample_rows=sample_rows, scratch=scratch
    )


@pytest.mark.parametrize(("sample_rows", "expected"), [(100, 25), (25, 25), (24, 13), (9, 9)])
def test_the_sample_is_spread_over_the_texts_and_no_larger_than_asked_for(
    long_bundle, tmp_path, sample_rows, expected
):
    texts = [" ".join(["cat"] * (n + 1)) for n in range(25)]
    rows = subject(long_bundle.path, texts=texts, scratch=tmp_path, sample_rows=sample_rows).rows
    words = rows.lengths_N - 2
    step = -(-25 // sample_rows)
    assert words.tolist() == list(range(1, 26, step))
    assert len(words) == expected


def test_the_others_run_the_checkpoints_weights(
    long_bundle, teacher, texts, written_models, tmp_path
):
    found = subject(long_bundle.path, teacher, texts=texts, scratch=tmp_path)
    (written,) = written_models
    assert found.baselines is written
    assert written.model.config.num_hidden_layers == 1
    assert not written.model.training
    assert written.rows is found.rows
    assert found.checkpoint == teacher
    assert str(found.bundle) == str(long_bundle.path)
    without_rows = subject(long_bundle.path, teacher, scratch=tmp_path)
    assert without_rows.rows is None
    assert len(written_models[1].rows) == 128  # made up, to calibrate with


def test_a_shape_is_made_up_whole(teacher, texts, written_models, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    shapes = []

    def make(shape):
        shapes.append(shape)
        config = transformers.BertConfig(
            vocab_size=shape.vocab_size,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
        return transformers.BertForSequenceClassification(config).eval()

    monkeypatch.setattr("fastformers.benchmark.random_models.make_random_model", make)
    found = make_subject("pruned", teacher, texts=texts, sample_rows=10, scratch=tmp_path)
    vocab_size = found.bundle.load_tokenizer().vocab_size
    assert shapes == [replace(SHAPES_BY_NAME["pruned"], vocab_size=vocab_size)]
    assert open_bundle(found.bundle.path).provenance == {"teacher": "random weights"}
    assert found.checkpoint == tmp_path / "checkpoint"
    assert (found.checkpoint / "model.safetensors").is_file()
    assert (found.checkpoint / "tokenizer.json").is_file()
    assert written_models[0].model.config.hidden_size == 16
    assert written_models[0].rows is found.rows
    assert len(found.rows) == 10


def test_a_shape_needs_a_tokenizer(written_models, tmp_path):
    with pytest.raises(InputError, match=r"--teacher .*none: has no tokenizer\.json"):
        make_subject("pruned", tmp_path / "none", texts=[], sample_rows=10, scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_vocabulary_is_refused(
    long_bundle, tokenizer_json, written_models, tmp_path
):
    other = save_checkpoint(tmp_path / "other", tokenizer_json, vocabulary=["film star"])
    with pytest.raises(InputError, match=r"--teacher .*other: its vocabulary is not the bundle's"):
        subject(long_bundle.path, other, scratch=tmp_path)
    (other / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"--teacher .*other: has no tokenizer\.json"):
        subject(long_bundle.path, other, scratch=tmp_path)
    assert written_models == []


def test_bundles_that_cannot_be_compared_are_refused(
    pair_bundle, bundle, bundle_factory, teacher, tmp_path
):
    with pytest.raises(InputError, match="scores text pairs"):
        subject(pair_bundle.path, scratch=tmp_path)
    with pytest.raises(InputError, match="reads 64 tokens; bench measures 128"):
        subject(bundle.path, scratch=tmp_path)
    vectors = bundle_factory(
        tmp_path / "vectors", task="embedding", labels=(), num_outputs=4, max_length=128
    )
    with pytest.raises(InputError, match=r"--teacher .* not embeddings"):
        subject(vectors.path, teacher, scratch=tmp_path)
    assert subject(vectors.path, scratch=tmp_path).baselines is None
