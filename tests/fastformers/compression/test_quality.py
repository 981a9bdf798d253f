from pathlib import Path

import numpy as np
import pytest

from fastformers.inference.tasks import MULTIPLE_CHOICE, REGRESSION, TEXT_CLASSIFICATION

pytest.importorskip("torch")

from fastformers.compression.quality import (
    Quality,
    measure_quality,
    quality_drop,
    warn_if_known,
)
from fastformers.data.held_out import HeldOut
from fastformers.inference.description.stage_quality import StageQuality


def one_hot(*classes):
    return np.eye(3, dtype=np.float32)[list(classes)]


def test_accuracy_is_against_the_labels_and_agreement_against_the_teacher():
    quality = measure_quality(
        one_hot(0, 1, 2, 0),
        teacher_logits_NC=one_hot(0, 1, 2, 1),
        held_out=HeldOut(task=TEXT_CLASSIFICATION, targets_N=np.array([0, 2, 1, 1])),
    )
    assert (quality.quality, quality.agreement) == (0.25, 0.75)
    # Class 0: 1 of 2 predicted right, all found: 2/3; classes 1 and 2: none right.
    assert quality.other_metrics == {"macro-F1": pytest.approx(2 / 9)}


def test_a_drop_is_in_points_and_exact_where_decimals_are():
    assert quality_drop(0.89, teacher_quality=0.90) == 1.0  # not a little more or less
    assert quality_drop(0.8899, teacher_quality=0.9) == 1.01
    assert quality_drop(0.95, teacher_quality=0.9) == -5.0


def test_each_task_is_measured_as_itself():
    scores_N1 = np.array([[1], [2], [3], [4]], np.float32)
    quality = measure_quality(
        scores_N1[::-1],
        teacher_logits_NC=scores_N1,
        held_out=HeldOut(
            task=MULTIPLE_CHOICE,
            targets_N=np.array([0, 1, 1, 0]),
            groups_N=np.array([0, 0, 1, 1]),
        ),
    )
    assert quality == Quality(quality=0.5, agreement=0.0)
    quality = measure_quality(
        scores_N1[::-1],
        teacher_logits_NC=scores_N1,
        held_out=HeldOut(task=REGRESSION, targets_N=-scores_N1[:, 0]),
    )
    assert quality == Quality(quality=1.0, agreement=-1.0)


def test_a_teacher_that_knows_the_rows_that_choose_is_said(caplog):
    def teacher(quality, num_rows=400):
        return StageQuality(
            stage="teacher",
            quality=quality,
            agreement=1,
            num_rows=num_rows,
            model_bytes=1,
            seconds=0,
        )

    warn_if_known(teacher(0.83), teacher(0.80), Path("t.csv"))  # within 3.9 points of chance
    warn_if_known(teacher(0.90, 20), teacher(0.80, 10_000), Path("t.csv"))  # 18 of 20 rows
    assert not caplog.records
    warn_if_known(teacher(0.99), teacher(0.80), Path("t.csv"))
    (line,) = caplog.messages
    assert line.startswith("t.csv: the teacher has accuracy 99.00 on the rows that choose, and 80.")
    assert "give rows that are new to it by --select" in line
