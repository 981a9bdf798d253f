import copy
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastformers.compression.pruning.prune import (  # noqa: E402
    measure_importance,
    prune_model,
)
from fastformers.compression.pruning.pruning_plan import plan_pruning  # noqa: E402
from fastformers.compression.students.student import cut_layers, cut_width  # noqa: E402
from fastformers.errors import InputError  # noqa: E402
from fastformers.inference.tokenizer import Tokenizer  # noqa: E402
from fastformers.models.architectures import architecture_of  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.loading import load_model  # noqa: E402
from fastformers.models.sentence_encoder import SentenceEncoder  # noqa: E402
from fastformers.models.variants.reduced_layers import (  # noqa: E402
    change_reduction,
    reduced_layers,
    run_with_states,
    significance_of,
)
from fastformers.models.variants.token_reduction import (  # noqa: E402
    TokenPool,
    TokenReduction,
    reduction_of,
)

DROP = TokenReduction(keep_shares=(0.8, 0.5))
MEAN = TokenReduction(pool=TokenPool(before_layer=1, every=4, how="mean"))
MAX = TokenReduction(pool=TokenPool(before_layer=0, every=3, how="max"))
BOTH = TokenReduction(keep_shares=(1.0, 0.6), pool=MEAN.pool)


@pytest.fixture(scope="module")
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=32).encode(make_texts(24, max_words=28))


def reduced(model, reduction):
    model = copy.deepcopy(model)
    change_reduction(model, reduction)
    return model


def batch_of(rows, numbers, pad_to=None):
    """Ids and mask (B, T) of rows, padded to the longest or further."""
    lengths = rows.lengths_N[numbers]
    longest = pad_to or int(lengths.max())
    ids = np.zeros((len(numbers), longest), np.int64)
    mask = np.arange(longest) < lengths[:, None]
    for at, row in enumerate(numbers):
        ids[at, : lengths[at]] = rows.ids[rows.offsets[row] : rows.offsets[row + 1]]
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def reference(model, reduction, weights, ids_T):
    """Logits of one row, computed slowly: dropped tokens stay and are masked by hand."""
    architecture = architecture_of(model.config)
    with torch.no_grad():
        x = model(ids_T[None], output_hidden_states=True).hidden_states[0][0]
        stays = torch.ones(len(x), dtype=torch.bool)
        for at, layer in enumerate(architecture.layers(model.base_model)):
            pool = reduction.pool
            if pool is not None and at == pool.before_layer:
                groups = [x[i : i + pool.every] for i in range(1, len(x), pool.every)]
                one = {"mean": lambda g: g.mean(0), "max": lambda g: g.amax(0)}[pool.how]
                x = torch.stack([x[0], *map(one, groups)])
                stays = torch.ones(len(x), dtype=torch.bool)
            parts = architecture.parts(layer)
            outputs = []
            significance = None if weights[at] is None else (x * weights[at]).sum(dim=1)
            for head in range(parts.num_heads):
                part = slice(head * parts.head_width, (head + 1) * parts.head_width)
                q, k, v = (p(x)[:, part] for p in (parts.query, parts.key, parts.value))
                scores = q @ k.T / parts.head_width**0.5
                outputs.append(scores.masked_fill(~stays, -torch.inf).softmax(dim=1) @ v)
            x = parts.attention_norm(parts.output(torch.cat(outputs, dim=1)) + x)
            if at < len(reduction.keep_shares):
                num_left = int(np.ceil(reduction.keep_shares[at] * int(stays.sum()) - 1e-9))
                significance[0] = torch.inf
                order = sorted(
                    stays.nonzero()[:, 0].tolist(), key=lambda t: (-float(significance[t]), t)
                )
                stays = torch.zeros_like(stays)
                stays[order[: max(num_left, 1)]] = True
            activate = getattr(parts.activated, parts.activation_name)
            x = parts.ffn_norm(parts.down(activate(parts.up(x))) + x)
        x = x[stays][None]
        head = architecture.head(model)
        hidden = getattr(torch, head.activation, None) or torch.nn.functional.gelu
        return head.output(hidden(head.hidden(x[:, 0])))[0].numpy()


@pytest.mark.parametrize("reduction", [DROP, MEAN, MAX, BOTH], ids=["drop", "mean", "max", "both"])
def test_it_gives_what_masking_by_hand_gives(make_prunable, rows, reduction):
    model = make_prunable()
    model.config.classifier_dropout = None
    ours = reduced(model, reduction)
    found_NC = predict_logits(ours, rows)
    plain_NC = predict_logits(model, rows)
    for row in (0, 5, int(rows.lengths_N.argmin())):
        ids = torch.from_numpy(rows.ids[rows.offsets[row] : rows.offsets[row + 1]].astype(np.int64))
        expected = reference(model, reduction, significance_of(ours, 3), ids)
        np.testing.assert_allclose(found_NC[row], expected, atol=2e-5)
    assert np.abs(found_NC - plain_NC).max() > 1e-2  # it does something


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("reduction", [DROP, BOTH, MAX], ids=["drop", "both", "max"])
def test_a_row_does_not_depend_on_padding_or_on_the_rows_beside_it(
    make_teacher, rows, reduction, attention
):
    model = reduced(make_teacher(num_hidden_layers=3), reduction)
    model.set_attn_implementation(attention)
    numbers = np.array([int(rows.lengths_N.argmax()), int(rows.lengths_N.argmin()), 3, 4])
    alone_NC = predict_logits(model, rows)[numbers]
    for pad_to in (None, 48):
        ids, mask = batch_of(rows, numbers, pad_to)
        with torch.inference_mode():
            found = model(ids, attention_mask=mask).logits.numpy()
        np.testing.assert_allclose(found, alone_NC, atol=2e-5)


def test_what_is_left_is_counted_by_the_length_of_each_row_and_keeps_its_order(make_teacher, rows):
    model = reduced(make_teacher(num_hidden_layers=3), BOTH)
    numbers = np.arange(8)
    ids, mask = batch_of(rows, numbers)
    with torch.no_grad():
        _, states = run_with_states(model, input_ids=ids, attention_mask=mask)
    expected_LN = BOTH.count_tokens(rows.lengths_N[numbers], 3)
    found_LN = np.stack([state.weights_BK.sum(dim=1).numpy() for state in states])
    np.testing.assert_array_equal(found_LN, expected_LN)
    assert [state.pool for state in states] == [None, None, BOTH.pool, BOTH.pool]
    last = states[-1]
    for positions, weights in zip(last.positions_BK, last.weights_BK, strict=True):
        left = positions[weights > 0].tolist()
        assert left[0] == 0
        assert left == sorted(set(left))


def test_equal_tokens_stay_by_their_position(make_teacher):
    model = make_teacher(num_hidden_layers=3)
    torch.nn.init.zeros_(model.bert.embeddings.position_embeddings.weight)
    ids = torch.full((1, 10), 7)  # all tokens of a row are the same one
    with torch.no_grad():
        _, states = run_with_states(reduced(model, DROP), input_ids=ids)
    assert states[1].positions_BK.tolist() == [list(range(8))]
    assert states[2].positions_BK.tolist() == [list(range(4))]


@pytest.mark.parametrize("reduction", [DROP, BOTH], ids=["drop", "both"])
def test_it_survives_copies_files_cuts_and_pruning(make_prunable, rows, tmp_path, reduction):
    model = reduced(make_prunable(), reduction)
    logits_NC = predict_logits(model, rows)
    np.testing.assert_array_equal(predict_logits(copy.deepcopy(model), rows), logits_NC)
    model.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert reduction_of(loaded.config) == reduction
    np.testing.assert_allclose(predict_logits(loaded, rows), logits_NC, atol=1e-5)

    narrow = cut_width(model, 16, measure_importance(model, rows))
    assert np.isfinite(predict_logits(narrow, rows)).all()
    assert {len(one) for one in significance_of(narrow, 3) if one is not None} == {16}
    plan = plan_pruning(measure_importance(model, rows), prune_heads=0.5, prune_ffn=0.5)
    pruned = prune_model(model, plan)
    pruned.save_pretrained(tmp_path / "pruned")
    again = load_model(tmp_path / "pruned")
    np.testing.assert_allclose(predict_logits(again, rows), predict_logits(pruned, rows), atol=1e-5)
    assert reduction_of(again.config) == reduction
    assert not np.allclose(predict_logits(pruned, rows), logits_NC, atol=1e-3)


def test_a_student_of_fewer_layers_keeps_the_shares_of_its_own(make_teacher, rows):
    whole = TokenReduction(
        keep_shares=(1.0, 0.8, 0.5), pool=TokenPool(before_layer=1, every=2, how="mean")
    )
    model = reduced(make_teacher(num_hidden_layers=4), whole)
    student = cut_layers(model, [0, 2, 3])
    before, after = significance_of(model, 4), significance_of(student, 3)
    torch.testing.assert_close(after[1], before[2])
    assert reduction_of(student.config) == replace(whole, keep_shares=(1.0, 0.5, 1.0))
    assert np.isfinite(predict_logits(student, rows)).all()
    assert reduction_of(cut_layers(model, [2, 3]).config).pool.before_layer == 0


def test_the_mean_of_a_sentence_encoder_is_of_the_tokens_that_are_left(make_teacher, rows):
    encoder = make_teacher(num_hidden_layers=2).base_model
    model = SentenceEncoder(encoder, pooling="mean")
    change_reduction(model, DROP)
    numbers = np.array([0, int(rows.lengths_N.argmin())])
    ids, mask = batch_of(rows, numbers)
    with torch.no_grad():
        out, states = run_with_states(model, input_ids=ids, attention_mask=mask)
    for row, number in enumerate(numbers):
        left = int(DROP.count_tokens(rows.lengths_N[[number]], 2)[-1, 0])
        expected = states[-1].values_BKD[row, :left].mean(dim=0)
        np.testing.assert_allclose(out.logits[row], expected, atol=1e-5)
    np.testing.assert_allclose(predict_logits(model, rows)[numbers], out.logits, atol=1e-5)


def test_dropping_begins_as_the_whole_model_and_ends_as_the_reduced_one(make_teacher, rows):
    model = make_teacher(num_hidden_layers=3)
    encoder = SentenceEncoder(make_teacher(num_hidden_layers=3).base_model, pooling="mean")
    ids, mask = batch_of(rows, np.arange(8))
    for whole in (model, encoder):
        ours = reduced(whole, DROP)
        layers = reduced_layers(ours)

        def logits(one, weight=None, layers=layers):
            if weight is not None:
                layers.dropped_weight = weight
            with torch.inference_mode():
                return one(input_ids=ids, attention_mask=mask).logits.numpy()

        hard = logits(ours)
        np.testing.assert_allclose(logits(ours, 1.0), logits(whole), atol=1e-5)
        np.testing.assert_allclose(logits(ours, 1e-7), hard, atol=1e-4)
        middle = np.abs(logits(ours, 0.5) - hard).max()
        assert middle > 1e-4
        assert np.abs(hard - logits(whole)).max() > 1e-3


def test_gradients_reach_all_layers(make_teacher, rows):
    model = reduced(make_teacher(num_hidden_layers=3), BOTH)
    ids, mask = batch_of(rows, np.arange(4))
    model.train()(ids, attention_mask=mask).logits.sum().backward()
    for name, parameter in model.named_parameters():
        if ".layer." in name and "query.bias" not in name and "key.bias" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("dropped_weight", [0.0, 0.5], ids=["dropped", "softly"])
def test_losses_reach_what_says_which_tokens_stay(make_teacher, rows, dropped_weight):
    model = reduced(without_dropout(make_teacher(num_hidden_layers=3)), DROP)
    layers = reduced_layers(model)
    layers.dropped_weight = dropped_weight
    ids, mask = batch_of(rows, np.arange(24))
    out = model.train()(ids, attention_mask=mask).logits
    expected = model.eval()(ids, attention_mask=mask).logits
    torch.testing.assert_close(out, expected)  # what training adds is 0
    out.square().sum().backward()
    gradient_LD = layers.significance_LD.grad
    assert (gradient_LD.abs().sum(dim=1) > 0).all()


def without_dropout(model):
    """A copy whose training adds no noise."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def test_the_more_a_token_helps_the_more_significant_it_becomes(make_teacher, rows):
    """Steps along that gradient alone lower a loss, though it is a step function of the weights."""
    whole = without_dropout(make_teacher(num_hidden_layers=2))
    model = reduced(whole, TokenReduction(keep_shares=(0.5,))).train()
    ids, mask = batch_of(rows, np.arange(24))
    with torch.no_grad():
        target = whole(ids, attention_mask=mask).logits
    layers = reduced_layers(model)
    optimizer = torch.optim.Adam([layers.significance_LD], lr=2e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model(ids, attention_mask=mask).logits - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_files_that_do_not_say_which_tokens_stay_are_refused(make_teacher, tmp_path):
    model = reduced(make_teacher(num_hidden_layers=3), DROP)
    make_teacher(num_hidden_layers=3).save_pretrained(tmp_path)  # as before there were weights
    model.config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"no weights say which tokens stay.*--keep-tokens"):
        load_model(tmp_path)
    model.config.keep_tokens = [0.8]
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"significance_LD is \(2, 32\), and \(1, 32\) by keep_"):
        load_model(tmp_path)


@pytest.mark.parametrize("model_type", ["mpnet", "deberta-v2", "modernbert"])
def test_architectures_whose_tokens_know_their_offsets_are_refused(make_model, model_type):
    with pytest.raises(InputError, match=f"architecture '{model_type}' can neither drop nor pool"):
        change_reduction(make_model(model_type), DROP)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_tokens": [0.5, 0.0]}, r"keep_tokens \[0.5, 0.0\]: give a share above 0"),
        ({"keep_tokens": [1.1]}, "give a share above 0"),
        ({"keep_tokens": "half"}, "give a share above 0"),
        ({"keep_tokens": [0.5, 0.5, 0.5]}, "give a share above 0"),
        ({"pool_tokens": {"before_layer": 2, "every": 2, "how": "mean"}}, "before_layer"),
        ({"pool_tokens": {"before_layer": 1, "every": 1, "how": "mean"}}, "every"),
        ({"pool_tokens": {"before_layer": 1, "every": 2, "how": "sum"}}, "mean or max"),
        ({"pool_tokens": {"every": 2}}, "pool_tokens"),
        (
            {
                "keep_tokens": [0.5],
                "pool_tokens": {"before_layer": 1, "every": 2, "how": "mean"},
            },
            "layer 0 drops tokens and stands before the pooling",
        ),
    ],
)
def test_settings_of_a_file_that_make_no_sense_are_refused(
    make_teacher, tmp_path, settings, message
):
    model = make_teacher(num_hidden_layers=2)
    for name, value in settings.items():
        setattr(model.config, name, value)
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=rf"config\.json: .*{message}"):
        load_model(tmp_path)
