import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastformers.compression.pruning.token_significance import fit_significance  # noqa: E402
from fastformers.inference.tokenizer import Tokenizer  # noqa: E402
from fastformers.models.sentence_encoder import SentenceEncoder  # noqa: E402
from fastformers.models.variants.reduced_layers import (  # noqa: E402
    SIGNIFICANCE_SPREAD,
    change_reduction,
    run_with_states,
)
from fastformers.models.variants.token_reduction import TokenPool, TokenReduction  # noqa: E402


@pytest.fixture(scope="module")
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=32).encode(make_texts(200, max_words=28))


def states_and_attention(model, rows, row):
    """States that enter each layer, and the attention that tokens receive there, of one row."""
    ids = torch.from_numpy(rows.batch_ids(np.array([row])))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(ids, output_hidden_states=True, output_attentions=True)
    return [
        (states[0].numpy(), attention[0].sum(dim=(0, 1)).numpy())
        for states, attention in zip(out.hidden_states, out.attentions, strict=False)
    ]


@pytest.mark.parametrize("architecture", ["Bert", "Roberta", "DistilBert"])
def test_weights_tell_which_tokens_receive_attention(make_teacher, rows, architecture):
    model = make_teacher(architecture, max_position_embeddings=66)
    weights_LD = fit_significance(model, rows).numpy()
    width = model.config.hidden_size
    assert weights_LD.shape == (2, width)
    np.testing.assert_allclose((weights_LD**2).mean(axis=1) ** 0.5, SIGNIFICANCE_SPREAD, rtol=1e-4)
    rng = np.random.default_rng(0)
    fitted, at_random = [], []
    for row in range(40):
        for weights_D, (states_TD, received_T) in zip(
            weights_LD, states_and_attention(model, rows, row), strict=True
        ):
            if len(received_T) < 8:
                continue
            log_T = np.log(received_T[1:])
            fitted.append(np.corrcoef(states_TD[1:] @ weights_D, log_T)[0, 1])
            guess_D = rng.standard_normal(width)
            at_random.append(abs(np.corrcoef(states_TD[1:] @ guess_D, log_T)[0, 1]))
    assert np.mean(fitted) > 0.7
    assert np.mean(at_random) < 0.5


def test_they_are_those_of_a_ridge_regression(make_teacher, rows):
    model = make_teacher()
    weights_LD = fit_significance(model, rows).numpy()
    seen = [states_and_attention(model, rows, row) for row in range(len(rows))]
    for weights_D, of_rows in zip(weights_LD, zip(*seen, strict=True), strict=True):
        states_MD = np.concatenate([states_TD[1:] for states_TD, _ in of_rows]).astype(float)
        logs = [np.log(received_T[1:].astype(float)) for _, received_T in of_rows]
        target_M = np.concatenate([log_T - log_T.mean() for log_T in logs])
        covariance_DD = np.cov(states_MD.T, bias=True)
        ridge = 0.01 * np.diag(covariance_DD).mean()
        expected_D = np.linalg.solve(
            covariance_DD + ridge * np.eye(len(weights_D)), states_MD.T @ target_M
        )
        expected_D *= SIGNIFICANCE_SPREAD / (expected_D**2).mean() ** 0.5
        np.testing.assert_allclose(weights_D, expected_D, atol=1e-4)


def test_pooled_tokens_are_looked_at_where_tokens_are_pooled(make_teacher, rows):
    model = SentenceEncoder(make_teacher(num_hidden_layers=2).base_model, pooling="mean")
    plain_LD = fit_significance(model, rows)
    change_reduction(model, TokenReduction(pool=TokenPool(before_layer=1, every=4, how="mean")))
    pooled_LD = fit_significance(model, rows)
    torch.testing.assert_close(pooled_LD[0], plain_LD[0])
    assert not torch.allclose(pooled_LD[1], plain_LD[1], atol=1e-3)


def test_texts_of_one_token_say_nothing(make_teacher, rows):
    model = make_teacher()
    ones = type(rows)(
        ids=rows.ids[:3],
        offsets=np.arange(4),
        second_lengths_N=np.zeros(3, np.uint16),
    )
    before = [parameter.clone() for parameter in model.parameters()]
    assert not fit_significance(model, ones).any()
    assert all(map(torch.equal, before, model.parameters()))
    assert not any(module._forward_hooks for module in model.modules())
    with torch.no_grad():
        run_with_states(model, input_ids=torch.tensor([[2, 3]]))
