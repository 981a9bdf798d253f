import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastformers.compression.pruning import keep_tokens as keep_tokens_module  # noqa: E402
from fastformers.compression.pruning.keep_tokens import (  # noqa: E402
    choose_shares_for,
    keep_tokens,
)
from fastformers.compression.pruning.token_significance import fit_significance  # noqa: E402
from fastformers.inference.tokenizer import Tokenizer  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.sentence_encoder import SentenceEncoder  # noqa: E402
from fastformers.models.variants.reduced_layers import change_reduction  # noqa: E402
from fastformers.models.variants.token_reduction import (  # noqa: E402
    TokenPool,
    TokenReduction,
    reduction_of,
)


@pytest.fixture(scope="module")
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=32).encode(make_texts(16, max_words=28))


def test_a_copy_drops_tokens_and_the_model_does_not(make_teacher, rows):
    model = make_teacher(num_hidden_layers=3)
    before_NC = predict_logits(model, rows)
    dropping = keep_tokens(model, (0.5, 0.5), fit_significance(model, rows))
    assert np.abs(predict_logits(dropping, rows) - before_NC).max() > 1e-3
    np.testing.assert_array_equal(predict_logits(model, rows), before_NC)
    assert not reduction_of(model.config).reduces


def test_chosen_shares_keep_the_agreement_asked_for(make_teacher, rows):
    model = make_teacher(num_hidden_layers=3, labels=("a", "b", "c"))
    weights_LD = fit_significance(model, rows)
    shares = choose_shares_for(model, rows, weights_LD, min_agreement=0.9)
    assert len(shares) == 2  # of the last layer only the first token is read
    assert min(shares) < 1
    classes = [
        predict_logits(one, rows).argmax(axis=1)
        for one in (model, keep_tokens(model, shares, weights_LD))
    ]
    assert (classes[0] == classes[1]).mean() >= 0.9
    assert not reduction_of(model.config).reduces


def test_a_layer_that_nobody_reads_after_drops_all_it_may(make_teacher, rows):
    """The second layer's attention is cut off, so what enters it but the first token is idle."""
    model = make_teacher(num_hidden_layers=3)
    for layer in model.bert.encoder.layer[1:]:
        torch.nn.init.zeros_(layer.attention.output.dense.weight)
    weights_LD = fit_significance(model, rows)
    assert choose_shares_for(model, rows, weights_LD, min_agreement=1.0) == (0.1, 0.1)


def test_layers_before_the_pooling_keep_all_and_a_mean_reads_the_last(make_teacher, rows):
    model = SentenceEncoder(make_teacher(num_hidden_layers=2).base_model, pooling="mean")
    pool = TokenPool(before_layer=1, every=2, how="mean")
    change_reduction(model, TokenReduction(pool=pool))
    reports = []
    shares = choose_shares_for(
        model,
        rows,
        fit_significance(model, rows),
        min_agreement=0.0,
        on_progress=lambda *report: reports.append(report),
    )
    assert shares == (1.0, 0.1)
    # Of one layer; ten steps, of which each may be measured twice.
    assert reports == [("token shares", done + 1, 20) for done in range(len(reports))]
    assert len(reports) >= 9


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_share_costs_what_is_multiplied_for_the_tokens_of_each_step(
    make_teacher, rows, monkeypatch, pooling
):
    """Half of the tokens leave the first of two layers."""
    model = SentenceEncoder(make_teacher(num_hidden_layers=2).base_model, pooling=pooling)
    asked = []
    monkeypatch.setattr(
        keep_tokens_module, "choose_shares", lambda measure, cost_of, **_: asked.append(cost_of)
    )
    choose_shares_for(model, rows, torch.zeros(2, 32), min_agreement=0.9)
    all_N = rows.lengths_N.astype(int)
    kept_N, of_square, of_ffn, of_pair = -(-all_N // 2), 32 * 32, 2 * 32 * 64, 2 * 32
    # Tokens attend only once they are kept, and in the last layer the first alone where it is read.
    first_N = of_square * (2 * all_N + kept_N) + of_pair * all_N * kept_N
    second_N = (2 * of_square + of_pair) * kept_N
    if pooling == "mean":
        second_N = (4 * of_square + of_ffn) * kept_N + of_pair * kept_N**2
    first_N = first_N + (of_square + of_ffn) * kept_N
    assert asked[0]((0.5,)) == pytest.approx((first_N + second_N).mean())
