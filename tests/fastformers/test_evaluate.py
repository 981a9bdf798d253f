import numpy as np
import pytest

from fastformers.errors import QualityError
from fastformers.tokenizer import Tokenizer

torch = pytest.importorskip("torch")

from fastformers.evaluate import (  # noqa: E402
    Quality,
    check_quality,
    measure_quality,
    teacher_logits,
)


def one_hot(*classes):
    return np.eye(3, dtype=np.float32)[list(classes)]


def test_accuracy_is_against_the_labels_and_agreement_against_the_teacher():
    quality = measure_quality(
        one_hot(0, 1, 2, 0),
        teacher_logits_NC=one_hot(0, 1, 2, 1),
        labels_N=np.array([0, 2, 1, 1]),
    )
    assert quality == Quality(quality=0.25, agreement=0.75)


@pytest.mark.parametrize(("accuracy", "allowed"), [(0.90, 0), (0.89, 1), (0.895, 0.5), (0.95, 0)])
def test_a_drop_within_the_allowance_passes(accuracy, allowed):
    check_quality(
        Quality(quality=accuracy, agreement=0.0),
        teacher_quality=0.9,
        max_accuracy_drop=allowed,
        stage="quantize",
    )


@pytest.mark.parametrize(("accuracy", "allowed"), [(0.8899, 1), (0.8999, 0), (0.0, 50)])
def test_a_larger_drop_is_refused_with_the_numbers(accuracy, allowed):
    with pytest.raises(QualityError, match=r"quantize: .* the teacher's 90\.00, more") as e:
        check_quality(
            Quality(quality=accuracy, agreement=1.0),
            teacher_quality=0.9,
            max_accuracy_drop=allowed,
            stage="quantize",
        )
    assert f"--max-accuracy-drop {allowed}" in str(e.value)
    assert f"{100 * (0.9 - accuracy):.2f} points" in str(e.value)


@pytest.mark.parametrize("text_pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("architecture", ["Bert", "DistilBert"])
def test_teacher_logits_are_those_of_padded_batches_in_row_order(
    make_teacher, tokenizer_json, make_texts, architecture, text_pairs
):
    shape = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    model = make_teacher(architecture, **(shape if architecture == "DistilBert" else {}))
    rows = Tokenizer(tokenizer_json, max_length=48).encode(
        make_texts(40), make_texts(40, seed=1) if text_pairs else None
    )
    longest = int(rows.lengths_N.max())
    inputs = torch.zeros((3, 40, longest), dtype=torch.int64)  # ids, types, mask
    for row, length in enumerate(rows.lengths_N.tolist()):
        this = np.array([row])
        inputs[0, row, :length] = torch.from_numpy(rows.batch_ids(this)[0])
        inputs[1, row, :length] = torch.from_numpy(rows.batch_types(this)[0])
        inputs[2, row, :length] = 1
    types = {"token_type_ids": inputs[1]} if architecture == "Bert" else {}
    with torch.no_grad():
        expected_NC = model(input_ids=inputs[0], attention_mask=inputs[2], **types).logits.numpy()
    np.testing.assert_allclose(teacher_logits(model, rows), expected_NC, atol=1e-4)
    assert expected_NC.std(axis=0).min() > 0.01
