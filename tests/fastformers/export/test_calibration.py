import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from fastformers.errors import StageError
from fastformers.export.calibration import (
    CLIPPED_SHARES,
    NUM_BINS,
    Histogram,
    calibrate,
    choose_ranges,
    collect_histograms,
)
from fastformers.export.graph import write_graph
from fastformers.inference.engine import OnnxEngine, run_graph
from fastformers.inference.tasks import TEXT_CLASSIFICATION

activations = st_np.arrays(
    np.float32, st.integers(1, 300), elements=st.floats(-1000, 1000, width=16)
)
shares = st.sampled_from([*CLIPPED_SHARES, 0.01, 0.1, 0.5])

SAME_LABEL = TEXT_CLASSIFICATION.measure_agreement


def histogram_of(*parts):
    histogram = Histogram()
    for part in parts:
        histogram.widen(part)
    for part in parts:
        histogram.count(part)
    return histogram


@given(activations)
def test_without_clipping_the_range_is_that_of_the_values_and_zero(values):
    span = histogram_of(values).clipped_range(0)
    assert span.low == pytest.approx(min(0, values.min()), abs=1e-6)
    assert span.high == pytest.approx(max(0, values.max()), abs=1e-6)


@given(activations, shares)
def test_at_most_the_share_is_left_outside(values, share):
    span = histogram_of(values).clipped_range(share)
    bin_width = (float(values.max()) - float(values.min())) / NUM_BINS
    slack = 0.01 * bin_width + 1e-6  # values that sit on the edge of a bin
    outside = (values < span.low - slack) | (values > span.high + slack)
    assert outside.mean() <= share + 1e-9
    assert span.low <= 0 <= span.high


@given(activations)
def test_a_larger_share_never_widens_the_range(values):
    histogram = histogram_of(values)
    spans = [histogram.clipped_range(share) for share in (0, *CLIPPED_SHARES, 0.1, 0.9)]
    assert sorted(spans, key=lambda span: span.low) == spans
    assert sorted(spans, key=lambda span: -span.high) == spans


def test_each_tail_loses_half_of_the_share():
    values = np.linspace(-1, 1, 100_001, dtype=np.float32)
    span = histogram_of(values).clipped_range(0.2)
    assert (span.low, span.high) == pytest.approx((-0.8, 0.8), abs=2 * 2 / NUM_BINS)


def test_a_lone_outlier_is_clipped_and_the_bulk_is_kept():
    values = np.append(np.linspace(0, 1, 100_000, dtype=np.float32), np.float32(1000))
    assert histogram_of(values).clipped_range(0).high == 1000
    assert histogram_of(values).clipped_range(1e-4).high <= 1 + 1000 / NUM_BINS


@given(st.lists(activations, min_size=1, max_size=4))
def test_the_order_and_cut_of_the_batches_do_not_matter(parts):
    joined, apart = histogram_of(np.concatenate(parts)), histogram_of(*reversed(parts))
    assert (joined.low, joined.high) == (apart.low, apart.high)
    np.testing.assert_array_equal(joined.counts, apart.counts)
    assert joined.counts.sum() == sum(map(len, parts))


@pytest.mark.parametrize("values", [[2.5, 2.5], [0, 0], [1, 1 + 2**-23], [1e-30, 2e-30]], ids=str)
def test_values_that_hardly_differ_still_have_a_range(values):
    values = np.array(values, np.float32)
    for share in (0, 1e-3):
        span = histogram_of(values).clipped_range(share)
        assert span.low == 0
        assert span.high == pytest.approx(values.max(), abs=1e-6)


@pytest.fixture(scope="module")
def model(encoder_factory):
    return encoder_factory(num_layers=2)


@pytest.fixture(scope="module")
def rows(bundle, make_texts):
    return bundle.load_tokenizer().encode(make_texts(48))


@pytest.fixture(scope="module")
def observed(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("observed") / "observed.onnx"
    write_graph(model, path, text_pairs=False, observe=True)
    return path


def test_a_graph_is_run_in_batches_and_answers_in_the_order_of_the_rows(observed, rows):
    engine = OnnxEngine(observed)
    logits_NC = run_graph(observed, rows)
    lengths = rows.lengths_N.tolist()
    assert lengths != sorted(lengths, reverse=True)
    for row in range(len(rows)):
        alone_1C = engine.run(rows.batch_ids(np.array([row])), None)
        np.testing.assert_allclose(logits_NC[row], alone_1C[0], atol=1e-5)


def test_every_projection_is_observed_in_full(model, observed, rows):
    histograms = collect_histograms(observed, rows)
    parts = ["qkv", "output", "up", "down"]
    last = ["q", "output", "up", "down"]
    assert list(histograms) == [f"layer0.{p}" for p in parts] + [f"layer1.{p}" for p in last]
    num_tokens, width = int(rows.lengths_N.sum()), 32
    assert histograms["layer0.qkv"].counts.sum() == num_tokens * width
    assert histograms["layer0.down"].counts.sum() == num_tokens * 2 * width
    assert histograms["layer1.up"].counts.sum() == len(rows) * width  # of the first token alone


@pytest.mark.parametrize("text_pairs", [False, True])
def test_values_are_those_of_the_rows_token_types(model, rows, tmp_path, text_pairs):
    """Values of the first projection, with every token of the second type."""
    write_graph(model, tmp_path / "a.onnx", text_pairs=text_pairs, observe=True)
    second = SimpleNamespace(
        lengths_N=rows.lengths_N,
        batch_ids=rows.batch_ids,
        batch_types=lambda rows_B: np.ones_like(rows.batch_ids(rows_B)),
    )
    own, others = (
        collect_histograms(tmp_path / "a.onnx", each)["layer0.qkv"] for each in (rows, second)
    )
    assert ((own.low, own.high) != (others.low, others.high)) == text_pairs


def choose(model, rows, scratch, *, agreement_of=SAME_LABEL, **settings):
    """Choose ranges on the rows that calibrate."""
    return choose_ranges(
        model,
        rows,
        rows,
        text_pairs=False,
        scratch=scratch,
        agreement_of=agreement_of,
        **settings,
    )


def test_static_vectors_have_no_projection_to_calibrate(encoder_factory, rows, tmp_path):
    static = replace(encoder_factory(), layers=(), position_embeddings_PE=None, pooling="mean")
    assert choose(
        replace(static, token_types_KE=None, embedding_norm=None),
        rows,
        tmp_path,
        dynamic=False,
        min_agreement=1.0,
    ) == ({}, ())


def logits_error(model, ranges, rows, float_logits_NC, path):
    write_graph(model, path, text_pairs=False, ranges=ranges)
    return np.square(run_graph(path, rows) - float_logits_NC).mean()


def test_the_chosen_ranges_are_no_worse_than_min_max(model, observed, rows, tmp_path):
    histograms = collect_histograms(observed, rows)
    float_logits_NC = run_graph(observed, rows)
    chosen = calibrate(
        model,
        histograms,
        rows=rows,
        float_logits_NC=float_logits_NC,
        text_pairs=False,
        scratch=tmp_path,
        clipped_shares=(1e-3, 0.5),
    )
    min_max = {name: histogram.clipped_range(0) for name, histogram in histograms.items()}
    clipped = {name: histogram.clipped_range(0.5) for name, histogram in histograms.items()}
    error = logits_error(model, chosen, rows, float_logits_NC, tmp_path / "chosen.onnx")
    assert error <= logits_error(model, min_max, rows, float_logits_NC, tmp_path / "min_max.onnx")
    assert error < logits_error(model, clipped, rows, float_logits_NC, tmp_path / "half.onnx")


def test_an_outlier_that_the_model_ignores_is_clipped(model, observed, rows, tmp_path):
    """Histograms that claim a value of 5,000 once: with it in range, all else rounds to zero."""
    histograms = collect_histograms(observed, rows)
    float_logits_NC = run_graph(observed, rows)
    histogram = histograms["layer0.down"]
    inflated = Histogram(low=histogram.low, high=5000.0, counts=np.zeros(NUM_BINS, np.int64))
    inflated.counts[:8] = 10_000
    inflated.counts[-1] = 1
    chosen = calibrate(
        model,
        {**histograms, "layer0.down": inflated},
        rows=rows,
        float_logits_NC=float_logits_NC,
        text_pairs=False,
        scratch=tmp_path,
        clipped_shares=(1e-3,),
    )
    assert inflated.clipped_range(0).high == 5000
    assert chosen["layer0.down"].high < 50


def test_what_makes_no_difference_is_not_clipped(model, observed, rows, tmp_path):
    """Nothing reads the neurons, whatever their range."""
    layers = tuple(
        replace(layer, down=replace(layer.down, weight=0 * layer.down.weight))
        for layer in model.layers
    )
    histograms = collect_histograms(observed, rows)
    chosen = calibrate(
        replace(model, layers=layers),
        histograms,
        rows=rows,
        float_logits_NC=run_graph(observed, rows),
        text_pairs=False,
        scratch=tmp_path,
        clipped_shares=(0.5,),
    )
    for name in ("layer0.down", "layer1.down"):
        assert chosen[name] == histograms[name].clipped_range(0)


def test_a_model_that_is_not_finite_cannot_be_calibrated(model, observed, rows, tmp_path):
    with pytest.raises(StageError, match="no calibration gives finite logits"):
        calibrate(
            model,
            collect_histograms(observed, rows),
            rows=rows,
            float_logits_NC=np.full((len(rows), 2), np.nan, np.float32),
            text_pairs=False,
            scratch=tmp_path,
            clipped_shares=(),
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_activation_that_is_not_finite_is_named(model, rows, tmp_path, value):
    first, last = model.layers
    up = replace(first.up, bias=np.full_like(first.up.bias, value))
    write_graph(
        replace(model, layers=(replace(first, up=up), last)),
        tmp_path / "a.onnx",
        text_pairs=False,
        observe=True,
    )
    with pytest.raises(StageError, match=r"layer0\.down is not finite; is the teacher finite\?"):
        collect_histograms(tmp_path / "a.onnx", rows)


@pytest.fixture(scope="module")
def fragile(model):
    """One neuron of layer 0 is always at 3,000 and means nothing; its neighbors all round to 0."""
    first, last = model.layers
    up = replace(first.up, bias=np.append(first.up.bias[:-1], np.float32(3000)))
    up = replace(up, weight=np.concatenate([up.weight[:, :-1], 0 * up.weight[:, -1:]], axis=1))
    weight = np.concatenate([first.down.weight[:-1], 0 * first.down.weight[-1:]])
    layer = replace(first, up=up, down=replace(first.down, weight=weight))
    return replace(model, layers=(layer, last))


@pytest.mark.parametrize("dynamic", [False, True])
def test_projections_that_int8_would_harm_stay_in_float(fragile, rows, tmp_path, dynamic, caplog):
    everything, kept = choose(fragile, rows, tmp_path, dynamic=dynamic, min_agreement=0)
    assert kept == ()
    ranges, kept = choose(fragile, rows, tmp_path, dynamic=dynamic, min_agreement=0.9)
    assert kept == ("layer0.down",)
    assert set(everything) - set(ranges) == set(kept)
    assert caplog.records == []

    write_graph(fragile, tmp_path / "float.onnx", text_pairs=False)
    float_NC = run_graph(tmp_path / "float.onnx", rows)
    int8_error, error = (
        logits_error(fragile, chosen, rows, float_NC, tmp_path / "a.onnx")
        for chosen in (everything, ranges)
    )
    assert error < int8_error / 10


@pytest.mark.parametrize(("dynamic", "most"), [(False, 1 + 5 * 4 + 1 + 8 + 2), (True, 1 + 8 + 2)])
def test_each_candidate_that_ran_is_told(model, rows, tmp_path, dynamic, most):
    """Of 8 projections of 5 kinds: with clipped ranges, one by one in float, then two at most."""
    reports = []
    choose(
        model,
        rows,
        tmp_path,
        agreement_of=lambda logits_NC, float_logits_NC: 0.5,
        dynamic=dynamic,
        min_agreement=0.9,
        on_progress=lambda *report: reports.append(report),
    )
    assert reports == [("int8 candidates", done, most) for done in range(1, most + 1)]


def test_nothing_stays_in_float_where_that_helps_nothing(model, rows, tmp_path, caplog):
    _, kept = choose(
        model,
        rows,
        tmp_path,
        agreement_of=lambda logits_NC, float_logits_NC: 0.5,
        dynamic=True,
        min_agreement=0.9,
    )
    assert kept == ()
    assert "int8 agrees with the float model to 50.0% even with more in float" in caplog.text


def test_int8_that_is_good_enough_is_left_alone(model, rows, tmp_path):
    for dynamic in (False, True):
        ranges, kept = choose(model, rows, tmp_path, dynamic=dynamic, min_agreement=0.9)
        assert kept == ()
        assert [span is None for span in ranges.values()] == [dynamic] * (2 * 4)


def test_a_target_out_of_reach_costs_a_quarter_of_int8_at_most(model, rows, tmp_path, caplog):
    ranges, kept = choose(model, rows, tmp_path, dynamic=True, min_agreement=1.1)
    assert len(kept) <= 0.25 * 8
    assert len(ranges) == 8 - len(kept)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "asked for 110.0%" in record.getMessage()
