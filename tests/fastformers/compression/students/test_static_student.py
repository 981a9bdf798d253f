"""A student of static vectors: where it begins, and that it is a model as any other."""

import numpy as np
import pytest

from fastformers.errors import InputError
from fastformers.inference.tasks import EMBEDDING, MULTI_LABEL_CLASSIFICATION, REGRESSION
from fastformers.inference.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fastformers.compression.students.static_student import (  # noqa: E402
    compute_token_vectors,
    inverse_frequency,
    make_static_student,
)
from fastformers.export.graph import write_graph  # noqa: E402
from fastformers.export.read_encoder import read_encoder  # noqa: E402
from fastformers.inference.engine import run_graph  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.loading import (  # noqa: E402
    label_names,
    load_model,
    load_tokenizer,
    save_tokenizer,
    task_of,
)
from fastformers.models.sentence_encoder import SentenceEncoder  # noqa: E402


def quiet(what, done, total):
    pass


@pytest.fixture
def make_static(tokenizer_json):
    """A student of a teacher, whose vectors are as random as the teacher's."""

    def make(teacher, *, width=None, text_pairs=False):
        counts_V = np.zeros(teacher.get_input_embeddings().num_embeddings, np.int64)
        student = make_static_student(
            teacher, tokenizer_json, counts_V, width=width, text_pairs=text_pairs, seed=0
        )
        if hasattr(student, "classifier"):
            with torch.no_grad():
                student.classifier.weight *= 20  # a new head gives all texts nearly the same
        return student

    return make


@pytest.fixture
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=48).encode(make_texts(24))


@pytest.fixture
def pairs(tokenizer_json, make_texts):
    texts = make_texts(24)
    return Tokenizer(tokenizer_json, max_length=48).encode(texts, texts[::-1])


def check_model(model, rows, tmp_path, *, text_pairs=False):
    """It is saved, loaded and exported, with the same outputs; returns the loaded one."""
    model.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    logits_NC = predict_logits(model, rows)
    np.testing.assert_allclose(predict_logits(loaded, rows), logits_NC, atol=1e-6)
    graph = tmp_path / "model.onnx"
    write_graph(read_encoder(loaded), graph, text_pairs=text_pairs)
    np.testing.assert_allclose(run_graph(graph, rows), logits_NC, atol=2e-5)
    assert logits_NC.std(axis=0).min() > 1e-3
    return loaded


def test_a_token_begins_with_what_the_teacher_gives_for_it_alone(make_teacher, tokenizer_json):
    teacher = make_teacher()
    vectors_VD = compute_token_vectors(teacher, tokenizer_json, quiet)
    ids = Tokenizer(tokenizer_json, max_length=8).encode(["film"]).ids.astype(np.int64)
    with torch.no_grad():
        alone_D = teacher.base_model(torch.tensor(ids)[None]).last_hidden_state.mean(dim=1)[0]
    np.testing.assert_allclose(vectors_VD[ids[1]], alone_D, atol=0.05)  # bf16 where that is fast
    assert np.abs(vectors_VD[ids[1] + 1] - alone_D.numpy()).max() > 0.5


def test_a_frequent_token_begins_with_little_weight():
    weights_V = inverse_frequency(np.array([0, 1, 999]))
    np.testing.assert_allclose(weights_V, [1, 0.5, 0.001 / 1.0], rtol=0.01)


@pytest.mark.parametrize("width", [None, 8])
def test_a_classifier_is_saved_loaded_and_exported(
    make_teacher, make_static, rows, tmp_path, width
):
    teacher = make_teacher(labels=("a", "b", "c"))
    student = check_model(make_static(teacher, width=width), rows, tmp_path)
    assert label_names(student) == ("a", "b", "c")
    assert student.config.hidden_size == (width or 32)


def test_a_pair_is_read_as_two_means(make_teacher, make_static, pairs, tmp_path):
    student = make_static(make_teacher(), text_pairs=True)
    loaded = check_model(student, pairs, tmp_path, text_pairs=True)
    encoder = read_encoder(loaded)
    assert encoder.pooling == "texts" and len(encoder.head.hidden.weight) == 4 * 32


def test_its_directory_keeps_which_tokens_are_of_the_second_text(
    make_teacher, make_static, pairs, make_texts, tokenizer_json, tmp_path
):
    make_static(make_teacher(), text_pairs=True).save_pretrained(tmp_path)
    save_tokenizer(tokenizer_json, tmp_path)
    serialized, _ = load_tokenizer(tmp_path)
    texts = make_texts(24)
    found = Tokenizer(serialized, max_length=48).encode(texts, texts[::-1])
    np.testing.assert_array_equal(found.second_lengths_N, pairs.second_lengths_N)
    assert found.second_lengths_N.min() > 0


@pytest.mark.parametrize(
    ("task", "shape"),
    [
        (REGRESSION, {"labels": ("score",), "problem_type": "regression"}),
        (
            MULTI_LABEL_CLASSIFICATION,
            {"labels": ("a", "b"), "problem_type": "multi_label_classification"},
        ),
    ],
    ids=str,
)
def test_it_has_the_task_of_its_teacher(make_teacher, make_static, rows, tmp_path, task, shape):
    student = check_model(make_static(make_teacher(**shape)), rows, tmp_path)
    assert task_of(student) == task


def test_a_probability_stays_one(make_teacher, make_static, rows, tmp_path):
    teacher = make_teacher(labels=("score",), problem_type="regression")
    teacher.config.sentence_transformers = {"activation_fn": "torch.nn.modules.Sigmoid"}
    student = check_model(make_static(teacher), rows, tmp_path)
    logits_N1 = predict_logits(student, rows)
    assert logits_N1.min() > 0 and logits_N1.max() < 1


@pytest.mark.parametrize("width", [None, 8])
def test_an_embedder_gives_vectors_of_its_teachers_width(
    make_teacher, make_static, rows, tmp_path, width
):
    teacher = SentenceEncoder(make_teacher().base_model, pooling="mean", normalize=True).eval()
    student = check_model(make_static(teacher, width=width), rows, tmp_path)
    assert task_of(student) == EMBEDDING
    vectors_ND = predict_logits(student, rows)
    assert vectors_ND.shape[1] == 32
    # Before any training it is near its teacher, whose vectors of other directions are not near.
    cosines_N = (vectors_ND * predict_logits(teacher, rows)).sum(axis=1)
    others_N = (vectors_ND[:, ::-1] * predict_logits(teacher, rows)).sum(axis=1)
    assert cosines_N.mean() > 0.8 > others_N.mean() + 0.3


def test_a_width_beyond_the_teachers_is_refused(make_teacher, make_static):
    with pytest.raises(InputError, match="--student-width 33: the teacher's vectors have 32"):
        make_static(make_teacher(), width=33)
