import numpy as np
import pytest

from fastformers.inference.tokenizer import Tokenizer

torch = pytest.importorskip("torch")

from fastformers.models.forward import predict_logits, takes_token_types  # noqa: E402


@pytest.mark.parametrize("text_pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("architecture", ["Bert", "DistilBert"])
def test_logits_are_those_of_padded_batches_in_row_order(
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
    np.testing.assert_allclose(predict_logits(model, rows), expected_NC, atol=1e-4)
    assert expected_NC.std(axis=0).min() > 0.01


@pytest.mark.parametrize(
    ("model_type", "changes", "expected"),
    [
        ("bert", {}, True),
        ("bert", {"type_vocab_size": 1}, False),
        ("roberta", {}, False),
        ("roberta", {"type_vocab_size": 2}, True),
        ("deberta-v2", {}, False),
        ("deberta-v2", {"type_vocab_size": 2}, True),
        ("electra", {}, True),
        ("distilbert", {}, False),
        ("mpnet", {}, False),
        ("modernbert", {}, False),
    ],
)
def test_token_types_are_taken_where_there_is_more_than_one(
    make_model, model_type, changes, expected
):
    assert takes_token_types(make_model(model_type, **changes)) is expected
