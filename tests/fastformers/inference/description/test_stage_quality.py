import math

import pytest

from fastformers.inference.description.stage_quality import StageQuality


def measured(metric, quality, num_rows):
    return StageQuality(
        stage="s",
        quality=quality,
        agreement=1.0,
        num_rows=num_rows,
        model_bytes=1,
        seconds=0.0,
        metric=metric,
    )


@pytest.mark.parametrize(
    ("quality", "num_rows", "expected"),
    [
        (0.5, 10, (0.2366, 0.7634)),  # Wilson's, as published tables have it
        (0.9, 100, (0.8256, 0.9448)),
        (1.0, 20, (0.8389, 1.0)),  # never above 1, and no point
        (0.0, 20, (0.0, 0.1611)),
    ],
)
def test_a_share_of_right_rows_has_wilsons_interval(quality, num_rows, expected):
    assert measured("accuracy", quality, num_rows).interval == pytest.approx(expected, abs=1e-4)
    assert measured("exact match", quality, num_rows).interval == pytest.approx(expected, abs=1e-4)


def test_a_rank_correlation_has_fishers_interval():
    low, high = measured("Spearman", 0.8, 103).interval
    margin = 1.959964 * math.sqrt(1.06 / 100)
    assert math.atanh(high) - math.atanh(0.8) == pytest.approx(margin)
    assert math.atanh(0.8) - math.atanh(low) == pytest.approx(margin)


@pytest.mark.parametrize(
    ("metric", "quality", "num_rows"),
    [
        ("micro-F1", 0.8, 100),
        ("rank agreement", 0.99, 1000),
        ("accuracy", math.nan, 100),
        ("accuracy", 0.5, 0),
        ("Spearman", 0.5, 3),
        ("Spearman", 1.0, 100),
    ],
)
def test_what_cannot_be_told_is_none(metric, quality, num_rows):
    assert measured(metric, quality, num_rows).interval is None
