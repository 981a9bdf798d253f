import json
import re

import numpy as np
import pytest

from fastformers.errors import InputError
from tests.fastformers.conftest import ARCHITECTURES as WITH_LAYERS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.models.architectures import ARCHITECTURES  # noqa: E402
from fastformers.models.loading import (  # noqa: E402
    class_names,
    default_max_length,
    label_names,
    load_model,
    load_tokenizer,
    task_of,
)
from fastformers.models.sentence_encoder import SentenceEncoder  # noqa: E402

SUPPORTED = ", ".join(sorted(ARCHITECTURES))


def logits_of(model, ids_BT):
    with torch.no_grad():
        return model(
            input_ids=torch.from_numpy(ids_BT), attention_mask=torch.ones(ids_BT.shape)
        ).logits.numpy()


@pytest.mark.parametrize("model_type", WITH_LAYERS)
def test_a_saved_teacher_loads_as_it_was(make_model, tmp_path, model_type):
    model = make_model(model_type, labels=("bad", "good"))
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    ids_BT = np.random.default_rng(0).integers(2, 100, (4, 9))
    np.testing.assert_array_equal(logits_of(loaded, ids_BT), logits_of(model, ids_BT))
    assert not loaded.training
    assert class_names(loaded.config) == ("bad", "good")


def write_config(path, **fields):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("name", ["gpt2", "deberta", "t5", "no-such-architecture"])
def test_another_architecture_is_refused_by_name_with_the_list(tmp_path, name):
    path = write_config(tmp_path / "teacher", model_type=name)
    with pytest.raises(
        InputError, match=f"teacher: architecture '{name}' is not one of {SUPPORTED}"
    ):
        load_model(path)


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_config_that_names_no_architecture_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=str(tmp_path)):
        load_model(tmp_path)


def test_a_directory_without_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json; expected a Hugging Face model"):
        load_model(tmp_path / "missing")


def test_a_config_without_weights_is_refused(make_teacher, tmp_path):
    make_teacher().config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=str(tmp_path)):
        load_model(tmp_path)


def test_an_encoder_without_classifier_is_refused(make_teacher, tmp_path):
    make_teacher().bert.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"not fine-tuned as a classifier: .*classifier\.bias"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("labels", "fields", "task"),
    [
        (("a", "b"), {}, "text-classification"),
        (("score",), {}, "regression"),
        (("score",), {"problem_type": "regression"}, "regression"),
        (("a", "b"), {"problem_type": "multi_label_classification"}, "multi-label-classification"),
        (("a",), {"problem_type": "multi_label_classification"}, "multi-label-classification"),
        (("a", "b"), {"head": "MultipleChoice"}, "multiple-choice"),
    ],
)
def test_a_saved_model_says_what_its_task_is(make_teacher, tmp_path, labels, fields, task):
    make_teacher(labels=labels, **fields).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert task_of(model).name == task
    assert label_names(model) == (labels if "classification" in task else ())


def test_regression_of_several_numbers_is_refused(make_teacher, tmp_path):
    make_teacher(problem_type="regression").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="regression of 2 numbers; expected one"):
        load_model(tmp_path)


def test_a_tokenizer_comes_with_the_length_that_it_truncates_to(save_teacher, tmp_path):
    path = save_teacher(tmp_path / "teacher")
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 40}))
    tokenizer_json, limit = load_tokenizer(path)
    assert json.loads(tokenizer_json) == json.loads((path / "tokenizer.json").read_text())
    assert limit == 40


@pytest.mark.parametrize("others", [{}, {"vocab.txt": "[UNK]", "tokenizer_config.json": "{}"}])
def test_a_directory_without_fast_tokenizer_is_refused(make_teacher, tmp_path, others):
    make_teacher().save_pretrained(tmp_path)
    for name, content in others.items():
        (tmp_path / name).write_text(content)
    message = f"{tmp_path}: has no tokenizer.json; save it with a fast tokenizer"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("positions", "tokenizer_limit", "encoder_limit", "expected"),
    [
        (600, 10**30, None, 600),  # the tokenizer has no limit
        (8192, 8192, None, 8192),
        (600, 40, None, 40),
        (64, 10**30, None, 64),
        (64, 50, 20, 20),
        (64, 50, 60, 50),
    ],
)
def test_texts_are_truncated_to_the_least_of_all_limits(
    make_teacher, positions, tokenizer_limit, encoder_limit, expected
):
    model = make_teacher(max_position_embeddings=positions)
    if encoder_limit is not None:
        model = SentenceEncoder(
            model.base_model, pooling="mean", normalize=True, max_length=encoder_limit
        )
    assert default_max_length(model, tokenizer_limit) == expected
