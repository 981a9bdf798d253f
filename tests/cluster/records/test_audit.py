"""What a sample says of the whole corpus, and when it says that a run is not good enough."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fastformers.cluster.records.audit import (
    AuditReport,
    AuditSums,
    Estimate,
    check_agreement,
    check_so_far,
    describe_finding,
    measure_agreement,
    measure_labels,
    measure_of,
)
from fastformers.cluster.shards.audit_counts import UNITS, AuditCounts, count_audit
from fastformers.cluster.shards.label_counts import LabelCounts
from fastformers.errors import AuditError, InputError
from fastformers.inference.tasks import TASKS

CLASS = TASKS["text-classification"]


def counted(num_equal, num_rows):
    return AuditSums(counts=AuditCounts(num_rows=num_rows, num_equal=num_equal))


def test_a_share_of_equal_labels_has_wilsons_interval():
    agreement, difference = measure_agreement(counted(973, 1000), CLASS, share=1e-9)
    assert agreement.value == 0.973
    assert (agreement.low, agreement.high) == pytest.approx((0.9610, 0.9814), abs=1e-4)
    assert difference is None


def test_the_more_of_the_corpus_is_seen_the_less_is_left_to_guess():
    widths = []
    for share in (0.001, 0.5, 0.99):
        agreement, _ = measure_agreement(counted(973, 1000), CLASS, share=share)
        assert agreement.low < 0.973 < agreement.high
        widths.append(agreement.high - agreement.low)
    assert widths[1] == pytest.approx(widths[0] * math.sqrt(0.5), rel=0.02)
    assert widths[2] < widths[0] / 9
    agreement, _ = measure_agreement(counted(973, 1000), CLASS, share=1.0)
    assert agreement == Estimate(value=0.973, low=0.973, high=0.973)


def test_nothing_is_said_of_no_rows():
    assert measure_agreement(counted(0, 0), CLASS, share=0.001) == (None, None)


def number_sums(num_rows, *, task="regression", noise=0.1):
    rng = np.random.default_rng(0)
    own = rng.standard_normal((num_rows, 4)).astype(np.float32)
    auditors = own + noise * rng.standard_normal(own.shape).astype(np.float32)
    counts = count_audit(own, auditors, TASKS[task], ())
    rows = zip(own[:, 0].tolist(), auditors[:, 0].tolist(), [None] * num_rows, strict=True)
    return AuditSums(counts=counts, numbers=list(rows)), np.abs(own - auditors)[:, 0]


def test_numbers_have_a_rank_correlation_and_a_mean_distance():
    sums, distances = number_sums(400)
    agreement, difference = measure_agreement(sums, TASKS["regression"], share=1e-6)
    assert 0.98 < agreement.low < agreement.value < agreement.high < 1
    half = 1.96 * distances.std(ddof=1) / 20
    expected = (distances.mean(), distances.mean() - half, distances.mean() + half)
    found = (difference.value, difference.low, difference.high)
    assert found == pytest.approx(expected, rel=1e-3)
    shuffled = replace(sums, numbers=sums.numbers[::-1])
    assert measure_agreement(shuffled, TASKS["regression"], share=1e-6) == (agreement, difference)


def test_choices_are_compared_by_their_scores_and_called_so():
    """Rows are drawn, so the choices of a question are seldom all there."""
    sums, _ = number_sums(100, task="multiple-choice")
    as_numbers = measure_agreement(sums, TASKS["regression"], share=0.01)
    assert measure_agreement(sums, TASKS["multiple-choice"], share=0.01) == as_numbers
    names = {name: measure_of(task) for name, task in TASKS.items()}
    assert names["multiple-choice"] == names["regression"] == "Spearman"
    assert names["text-classification"] == "equal labels"


def test_embeddings_have_a_mean_cosine_of_at_most_one():
    sums, _ = number_sums(100, task="embedding")
    agreement, difference = measure_agreement(sums, TASKS["embedding"], share=0.01)
    assert 0.9 < agreement.low < agreement.value < agreement.high <= 1
    assert difference is None


def test_no_interval_of_a_cosine_goes_beyond_one():
    """Of 100 pairs, 99 are alike and one is opposite."""
    counts = AuditCounts(num_rows=100, total=98 * UNITS, squares=100 * UNITS)
    agreement, _ = measure_agreement(AuditSums(counts=counts), TASKS["embedding"], share=1e-6)
    assert (agreement.value, agreement.high) == (0.98, 1.0)


def test_a_rank_correlation_is_surer_the_more_of_the_corpus_its_sample_is():
    """Half of the corpus was drawn, and of half of that the numbers are kept."""
    sums, _ = number_sums(400)
    half = AuditSums(counts=sums.counts, numbers=sums.numbers[:200])

    def width(sums, share):
        agreement, _ = measure_agreement(sums, TASKS["regression"], share=share)
        return math.atanh(agreement.high) - math.atanh(agreement.low)

    for one, seen in ((sums, 0.5), (half, 0.25)):
        assert width(one, 0.5) == pytest.approx(width(one, 1e-9) * math.sqrt(1 - seen), rel=0.01)


@pytest.mark.parametrize("task", ["regression", "embedding"])
def test_a_mean_of_few_rows_has_no_interval(task):
    sums, _ = number_sums(29, task=task)
    agreement, _ = measure_agreement(sums, TASKS[task], share=0.01)
    assert (agreement.low, agreement.high) == (None, None)


@pytest.mark.parametrize("task", ["regression", "embedding"])
def test_nothing_is_left_to_guess_of_few_rows_that_are_all(task):
    sums, _ = number_sums(12, task=task)
    agreement, difference = measure_agreement(sums, TASKS[task], share=1.0)
    assert agreement.low == agreement.value == agreement.high
    assert difference is None or difference.low == difference.value == difference.high
    equal, _ = number_sums(12, task=task, noise=0.0)
    agreement, _ = measure_agreement(equal, TASKS[task], share=1.0)
    assert agreement == Estimate(value=1.0, low=1.0, high=1.0)


def test_rows_that_the_audit_bundle_failed_on_were_not_seen():
    """All rows were drawn and a fifth of them failed: as if four fifths had been drawn."""
    counts = AuditCounts(num_rows=800, num_failed=200, num_equal=760)
    agreement, _ = measure_agreement(AuditSums(counts=counts), CLASS, share=1.0)
    drawn, _ = measure_agreement(counted(760, 800), CLASS, share=0.8)
    assert agreement == drawn
    assert agreement.low < 0.95 < agreement.high
    sums = labeled_sums([("no", 0, 0, 700), ("no", 1, 0, 100)])
    failed = AuditSums(counts=replace(sums.counts, num_failed=200))
    assert measure(failed, share=1.0) == measure(sums, share=0.8)


def labeled_sums(rows, task="text-classification"):
    """Counts of (label, own class, audit bundle's class, number of rows)."""
    names, labels, own, auditors = ("no", "yes"), [], [], []
    for label, ours, theirs, count in rows:
        labels += [label] * count
        own += [np.eye(2)[ours]] * count
        auditors += [np.eye(2)[theirs]] * count
    both = (np.array(logits, np.float32) for logits in (own, auditors))
    return AuditSums(counts=count_audit(*both, TASKS[task], names, labels))


def measure(sums, *, task=CLASS, names=("no", "yes"), share=0.1, labels=None):
    labels = sums.counts.own if labels is None else labels
    return measure_labels(sums, task, names, share=share, label_column="y", labels=labels)


def test_both_accuracies_and_their_difference_are_of_the_same_rows():
    rows = [("no", 0, 0, 700), ("no", 1, 0, 60), ("yes", 1, 0, 20), ("yes", 1, 1, 200)]
    sums = labeled_sums([*rows, ("yes", 0, 0, 20), (None, 0, 1, 50)])
    found = measure(sums, share=1e-9)
    assert (found.rows, found.metric) == (1000, "accuracy")
    assert (found.own, found.auditors) == pytest.approx((0.92, 0.96))
    # Agresti and Min: (20 - 60) / 1002, give or take 1.96 of its standard errors.
    center = -40 / 1002
    half = 1.959964 * math.sqrt((81 / 1002 - center**2) / 1002)
    assert found.difference.value == pytest.approx(-0.04)
    ends = (found.difference.low, found.difference.high)
    assert ends == pytest.approx((center - half, center + half), abs=1e-6)
    whole = measure(sums, share=1.0)
    assert whole.difference.low == whole.difference.high == pytest.approx(-0.04)


def test_numbers_are_compared_with_the_labels_by_their_ranks():
    numbers = [(float(n), float(n if n % 2 else -n), float(n)) for n in range(10)]
    sums = AuditSums(counts=AuditCounts(num_rows=10), numbers=[*numbers, (1.0, 1.0, None)])
    found = measure(sums, task=TASKS["regression"], names=())
    assert (found.metric, found.rows, found.own) == ("Spearman", 10, 1.0)
    assert found.auditors < 0.5
    assert found.difference == Estimate(value=1.0 - found.auditors)


def test_labels_of_the_rows_drawn_are_read_as_those_of_all_rows():
    """By themselves they could be places from 0 or from 1: no row of the first class was drawn."""
    sums = labeled_sums([(1, 1, 1, 60), (1, 0, 1, 40)])
    with pytest.raises(InputError, match="may be class"):
        measure(sums)
    places = LabelCounts(num_rows=300, labels={"0": 200, "1": 100})
    found = measure(sums, labels=places)
    assert (found.own, found.auditors, found.rows) == (0.6, 1.0, 100)
    assert found.difference.low < -0.4 < found.difference.high < 0
    with pytest.raises(InputError, match="has more than 1,000 different values"):
        measure(sums, labels=LabelCounts(num_rows=9000, is_overfull=True))


def test_labels_that_are_none_are_said():
    with pytest.raises(InputError, match="column 'y' has no label for any row"):
        measure(counted(3, 5))


def make_report(agreement, *, rows=1000, failed_rows=0, min_agreement=0.95):
    return AuditReport(
        share=0.001,
        bundle="teacher",
        precision="float32",
        digest="0" * 64,
        rows=rows,
        failed_rows=failed_rows,
        measure="equal labels",
        agreement=agreement,
        difference=None,
        min_agreement=min_agreement,
        core_s=1.0,
        usd=0.1,
        quality=None,
        quality_unknown=None,
    )


def test_a_run_is_refused_only_beyond_chance():
    check_agreement(make_report(Estimate(value=0.94, low=0.92, high=0.951)), "out")
    check_agreement(make_report(Estimate(value=0.5)), "out")  # too few rows to tell
    check_agreement(make_report(None, rows=0), "out")
    check_agreement(make_report(Estimate(value=0.1, low=0, high=0.2), min_agreement=None), "out")
    with pytest.raises(AuditError) as caught:
        check_agreement(make_report(Estimate(value=0.93, low=0.91, high=0.9451)), "out")
    assert str(caught.value) == (
        "93.00% equal labels (95%: 91.00 to 94.51) of 1,000 rows by teacher, below "
        "--audit-min-agreement 95; the predictions are kept in out"
    )


def test_too_few_rows_are_said():
    finding = describe_finding(make_report(Estimate(value=0.5), rows=4))
    assert finding == (
        "50.00% equal labels of 4 rows, too few for an interval: give a larger --audit"
    )
    assert "no row was drawn, give a larger --audit than 0.001" in describe_finding(
        make_report(None, rows=0)
    )
    all_drawn = replace(make_report(None, rows=0), share=1.0)
    assert describe_finding(all_drawn) == "not known: no row has a prediction"
    equal_ranks = make_report(Estimate(value=1.0), rows=300)  # of which no interval is known
    assert describe_finding(equal_ranks) == "100.00% equal labels of 300 rows"
    assert "could not score the 7 rows drawn" in describe_finding(
        make_report(None, rows=0, failed_rows=7)
    )


def test_a_run_ends_early_only_where_it_is_hopeless():
    def check(num_equal, num_rows, *, earlier=0, task=CLASS):
        before = AuditCounts(num_rows=2 * earlier, num_equal=earlier)
        counts = (before, AuditCounts(num_rows=num_rows, num_equal=num_equal))
        check_so_far(counts, task, 0.95, "teacher")

    check(0, 0)
    check(935, 1000)  # an interval by itself would say no, but a run is looked at so often
    check(7, 10)
    check(0, 1000, task=TASKS["regression"])
    with pytest.raises(AuditError, match=r"50\.00% equal labels of 400 rows audited so far"):
        check(200, 400)
    with pytest.raises(AuditError, match="of 401 rows"):
        check(1, 1, earlier=200)


def test_chance_alone_refuses_few_runs():
    """Of runs that agree exactly as much as they must, one in forty is refused at the most."""
    rng = np.random.default_rng(0)
    refused = 0
    for equal in rng.binomial(2000, 0.95, 2000):
        agreement, _ = measure_agreement(counted(int(equal), 2000), CLASS, share=0.001)
        refused += make_report(agreement).is_refused
    assert 0.01 < refused / 2000 < 0.04


def test_a_mean_of_equal_values_is_a_point():
    counts = AuditCounts(num_rows=50, total=50 * UNITS, squares=50 * UNITS)
    agreement, _ = measure_agreement(AuditSums(counts=counts), TASKS["embedding"], share=0.1)
    assert agreement == Estimate(value=1.0, low=1.0, high=1.0)
