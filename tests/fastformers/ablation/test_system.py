"""A row of Table 4 follows from the runs of both sides."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fastformers.ablation.summary import TextLengths
from fastformers.ablation.system import Side, SystemRow, SystemRun, describe_system


def runs(*seconds, error=None, joules=True):
    return tuple(
        SystemRun(
            seconds=s,
            standard_error_s=error,
            core_seconds=2 * s,
            joules=8 * s if joules else None,
        )
        for s in seconds
    )


@pytest.fixture
def row(conditions):
    theirs = Side(
        name="bert",
        how="PyTorch",
        quality=0.76,
        timed_rows=2,
        runs=runs(100.0, 110.0, 90.0, error=5.0),
    )
    ours = Side(name="tiny", how="int8", quality=0.75, timed_rows=4, runs=runs(5.0, 4.0, 5.0))
    return SystemRow(
        task="BoolQ",
        metric="accuracy",
        agreement=0.9,
        out_of_the_box=theirs,
        bundle=ours,
        energy_source="assumed: x",
        texts=TextLengths.of(np.array([10, 20, 30, 40])),
        conditions=conditions,
    )


def test_a_speed_up_is_of_medians_with_its_turns_and_the_error_of_the_scaling(row):
    assert row.speedup == 20.0
    assert row.speedup_range == (18.0, 27.5)
    assert row.speedup_standard_error == pytest.approx(1.0)
    assert row.energy_ratio == 20.0
    content = json.loads(json.dumps(row.to_json()))
    assert (content["speedup"], content["speedup_range"]) == (20.0, [18.0, 27.5])
    shown = "\n".join(describe_system(row))
    assert "speed-up 20.0x ± 1.0 by the scaling (turns: 18.0x to 27.5x)" in shown
    assert "bert: 100.00 ± 5.00 s, scaled from 2 of 4 texts, 800 J (PyTorch)" in shown
    assert "tiny: 5.00 s, 40 J (int8)" in shown
    small = replace(row.out_of_the_box, runs=runs(100.0, error=0.1))
    sure = replace(row, out_of_the_box=small, bundle=replace(row.bundle, runs=runs(5.0)))
    assert "speed-up 20.0x ± <0.1 by the scaling" in describe_system(sure)[1]


def test_without_joules_energy_is_the_ratio_of_core_seconds(row):
    unknown = replace(row.bundle, runs=runs(5.0, 5.0, 10.0, joules=False))
    assert replace(row, bundle=unknown).energy_ratio == 20.0
