import json

import numpy as np
import pytest

from fastformers.errors import InputError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.models.architectures import ARCHITECTURES  # noqa: E402
from fastformers.models.loading import class_names, label_names, load_model, task_of  # noqa: E402

SUPPORTED = ", ".join(sorted(ARCHITECTURES))


def logits_of(model, ids_BT):
    with torch.no_grad():
        return model(
            input_ids=torch.from_numpy(ids_BT), attention_mask=torch.ones(ids_BT.shape)
        ).logits.numpy()


@pytest.mark.parametrize("model_type", ARCHITECTURES)
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
