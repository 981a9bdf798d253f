import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tokenizers import Tokenizer as HfTokenizer

from fastformers.data.examples import Examples
from fastformers.errors import InputError
from fastformers.export.graph import write_graph
from tests.fastformers.conftest import ARCHITECTURES

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.compression import own_pipeline  # noqa: E402
from fastformers.compression.artifact import ModelArtifact  # noqa: E402
from fastformers.compression.own_pipeline import ODD_TEXTS, check_own_pipeline  # noqa: E402
from fastformers.export.read_encoder import read_encoder  # noqa: E402
from fastformers.models.loading import (  # noqa: E402
    default_max_length,
    load_model,
    load_tokenizer,
)
from fastformers.models.sentence_encoder import SentenceEncoder  # noqa: E402

NUM_TEXTS = 500


def make_odd_texts(num_texts, seed):
    """Random joins of words, odd texts, special tokens and single characters of any script."""
    rng = np.random.default_rng(seed)
    pieces = ["the cat", "Dog", "1,234", "[PAD]", "[SEP]", "[CLS]", "[UNK]", "[MASK]", *ODD_TEXTS]
    texts = []
    for _ in range(num_texts):
        joined = [pieces[at] for at in rng.integers(0, len(pieces), rng.integers(0, 7))]
        points = rng.integers(1, 0x2FFF, 2).tolist()
        texts.append(rng.choice(["", " ", "\n"]).join([*joined, *map(chr, points)]))
    return texts


def open_artifact(path, train, *, max_length=None):
    model = load_model(path)
    tokenizer_json, limit = load_tokenizer(path)
    return ModelArtifact(
        key="",
        model=model,
        tokenizer_json=tokenizer_json,
        max_length=max_length or default_max_length(model, limit),
        text_pairs=train.text_pairs is not None,
        train=train,
        train_path=path,
        work=path,
    )


def examples_of(texts, text_pairs=None):
    return Examples(texts=texts, text_pairs=text_pairs, labels=[None] * len(texts))


@pytest.fixture
def train(make_texts):
    return examples_of(make_texts(12))


@pytest.fixture
def pairs(make_texts):
    return examples_of(make_texts(12), make_texts(12, seed=1))


def write(artifact, path):
    write_graph(read_encoder(artifact.model), path, text_pairs=artifact.text_pairs)
    return replace(artifact, graph=path)


def own_ids_and_logits(path, examples, max_length):
    """Ids and logits of transformers' own tokenizer and model, in padded batches."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path).eval()
    ids, logits = [], []
    for start in range(0, len(examples), 50):
        batch = slice(start, start + 50)
        encoded = tokenizer(
            examples.texts[batch],
            None if examples.text_pairs is None else examples.text_pairs[batch],
            truncation=True,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        )
        is_text = encoded["attention_mask"].bool()
        ids += [row[kept].tolist() for row, kept in zip(encoded["input_ids"], is_text, strict=True)]
        with torch.no_grad():
            logits.append(model(**encoded).logits.numpy())
    return ids, np.concatenate(logits)


@pytest.mark.parametrize("kind", ["texts", "pairs"])
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_odd_texts_have_the_ids_and_logits_of_transformers(
    save_teacher, tmp_path, model_type, kind
):
    architecture, shape = ARCHITECTURES[model_type]
    path = save_teacher(tmp_path / "teacher", architecture, **shape)
    if shape.get("type_vocab_size") == 1 or model_type in ("distilbert", "mpnet"):
        leave_out_types(path)  # as the tokenizers of these architectures do
    texts = make_odd_texts(NUM_TEXTS, 0)
    examples = examples_of(texts, make_odd_texts(NUM_TEXTS, 1) if kind == "pairs" else None)
    artifact = write(open_artifact(path, examples), tmp_path / "model.onnx")
    expected_ids, expected_NC = own_ids_and_logits(path, examples, artifact.max_length)
    rows = artifact.tokenize(examples)
    bounds = rows.offsets.tolist()
    found_ids = [rows.ids[start:stop].tolist() for start, stop in pairwise(bounds)]
    assert found_ids == expected_ids
    assert 1 in {one for row in found_ids for one in row[1:-1]}  # RoBERTa's padding, inside a text
    np.testing.assert_allclose(artifact.logits(examples), expected_NC, atol=2e-4)
    assert expected_NC.std(axis=0).min() > 0.05


def leave_out_types(path):
    change_json(path / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])


def change_json(file, **fields):
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**content, **fields}))


def test_pairs_without_token_types_are_read_as_by_transformers(save_teacher, pairs, tmp_path):
    path = save_teacher(tmp_path / "teacher")
    with_types = open_artifact(path, pairs).logits(pairs)
    leave_out_types(path)
    artifact = open_artifact(path, pairs)
    check_own_pipeline(path, artifact)
    _, expected_NC = own_ids_and_logits(path, pairs, artifact.max_length)
    graph = write(artifact, tmp_path / "model.onnx")
    np.testing.assert_allclose(graph.logits(pairs), expected_NC, atol=1e-4)
    assert np.abs(with_types - expected_NC).max() > 0.01


@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_the_end_of_a_text_is_kept_where_the_tokenizer_keeps_it(
    save_teacher, make_texts, tmp_path, kind
):
    path = save_teacher(tmp_path / "teacher")
    change_json(path / "tokenizer_config.json", truncation_side="left", model_max_length=12)
    long = make_texts(30, max_words=40)
    examples = examples_of(long, long[::-1] if kind == "pairs" else None)
    artifact = open_artifact(path, examples)
    check_own_pipeline(path, artifact)
    assert artifact.max_length == 12
    expected_ids, _ = own_ids_and_logits(path, examples, 12)
    assert artifact.tokenize(examples).ids.tolist() == [one for row in expected_ids for one in row]


def test_padding_on_the_left_changes_nothing_for_a_text_alone(save_teacher, train, tmp_path):
    path = save_teacher(tmp_path / "teacher")
    change_json(path / "tokenizer_config.json", padding_side="left")
    check_own_pipeline(path, open_artifact(path, train))


def test_a_vocabulary_with_gaps_and_wide_ids_is_read(make_teacher, tokenizer_json, train, tmp_path):
    parts = json.loads(tokenizer_json)
    parts["model"]["vocab"]["cat"] = 70_001
    make_teacher(vocab_size=70_002).save_pretrained(tmp_path)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=HfTokenizer.from_str(json.dumps(parts)), pad_token="[PAD]"
    ).save_pretrained(tmp_path)
    artifact = open_artifact(tmp_path, train)
    check_own_pipeline(tmp_path, artifact)
    assert artifact.tokenize(examples_of(["the cat"])).ids.max() == 70_001


def test_a_setting_that_a_bundle_cannot_keep_is_refused_with_the_text(
    save_teacher, train, tmp_path
):
    path = save_teacher(tmp_path / "teacher")
    change_json(path / "tokenizer_config.json", split_special_tokens=True)
    message = r"teacher: a bundle would read '<s> <pad> .*' otherwise .*: token ids .* in place of"
    with pytest.raises(InputError, match=message):
        check_own_pipeline(path, open_artifact(path, train))


def test_other_outputs_are_refused_with_the_text(save_teacher, train, tmp_path, monkeypatch):
    path = save_teacher(tmp_path / "teacher")
    artifact = open_artifact(path, train)
    with torch.no_grad():
        artifact.model.classifier.bias += 1
    with pytest.raises(InputError, match=r"teacher: a bundle would give \[.*\] for '.*' and the"):
        check_own_pipeline(path, artifact)


def test_lengths_up_to_the_models_own_are_supported(save_teacher, train, tmp_path):
    _, shape = ARCHITECTURES["modernbert"]
    path = save_teacher(
        tmp_path / "teacher", "ModernBert", **shape | {"max_position_embeddings": 8192}
    )
    artifact = open_artifact(path, train)
    assert artifact.max_length == 8192
    check_own_pipeline(path, artifact)
    long = examples_of(["the cat sat " * 700])
    _, expected_NC = own_ids_and_logits(path, long, 8192)
    graph = write(artifact, tmp_path / "model.onnx")
    assert int(graph.tokenize(long).lengths_N[0]) == 2102
    np.testing.assert_allclose(graph.logits(long), expected_NC, atol=1e-3)


@pytest.fixture
def save_encoder(save_teacher, make_teacher):
    def save(path, **settings):
        save_teacher(path, encoder_only=True)
        SentenceEncoder(
            make_teacher().base_model, pooling="mean", normalize=True, **settings
        ).save_pretrained(path)
        return path

    return save


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("config_sentence_transformers.json", {"truncate_dim": 12}),
        ("sentence_bert_config.json", {"max_seq_length": 9}),
        ("sentence_bert_config.json", {"do_lower_case": True}),
    ],
)
def test_settings_of_sentence_transformers_are_those_of_its_encode(
    save_encoder, train, tmp_path, file, fields
):
    pytest.importorskip("sentence_transformers")
    path = save_encoder(tmp_path / "teacher")
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    change_json(path / file, **fields)
    artifact = open_artifact(path, train)
    check_own_pipeline(path, artifact)
    texts = examples_of(["The CAT sat on the mat", *train.texts])
    expected_ND = own_pipeline._own_embeddings(path, artifact.max_length, texts.texts)
    graph = write(artifact, tmp_path / "model.onnx")
    np.testing.assert_allclose(graph.logits(texts), expected_ND, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"},
    ],
    ids=["new", "old"],
)
def test_the_activation_of_a_cross_encoder_is_kept(save_teacher, pairs, tmp_path, settings):
    path = save_teacher(tmp_path / "teacher", labels=("score",))
    _, logits_N1 = own_ids_and_logits(path, pairs, 64)
    change_json(path / "config.json", **settings)
    artifact = open_artifact(path, pairs)
    check_own_pipeline(path, artifact)
    expected_N1 = 1 / (1 + np.exp(-logits_N1))
    np.testing.assert_allclose(artifact.logits(pairs), expected_N1, atol=1e-5)
    graph = write(artifact, tmp_path / "model.onnx")
    np.testing.assert_allclose(graph.logits(pairs), expected_N1, atol=1e-5)

    change_json(path / "config.json", sentence_transformers={"activation_fn": "torch.nn.Tanh"})
    with pytest.raises(InputError, match=r"config\.json: activation_fn 'torch\.nn\.Tanh'"):
        load_model(path)


def test_a_token_without_embedding_is_named(save_teacher, make_teacher, train, tmp_path):
    path = save_teacher(tmp_path / "teacher")
    make_teacher(vocab_size=10).save_pretrained(path)
    artifact = open_artifact(path, train)
    check_own_pipeline(path, artifact)  # its own pipeline fails on such a text, too
    with pytest.raises(InputError, match=r"token id \d+, and the model has embeddings for 10 "):
        artifact.logits(train)
