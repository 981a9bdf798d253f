import numpy as np
import pytest

from fastformers.ablation.measure import Ablation, StepResult
from fastformers.ablation.summary import Conditions


@pytest.fixture
def conditions():
    """Conditions of steps that nobody timed."""
    return Conditions(
        cpu_model="Imagined 9000",
        num_cores=16,
        usd_per_hour=0.677,
        price="Standard_F16s_v2",
        price_is_estimate=False,
        versions={"torch": "2.0", "onnxruntime": "1.30"},
        measured_at="2026-07-20",
        repeats=3,
        load_before=0.25,
    )


@pytest.fixture
def ablation():
    """Four texts, and no step that could be run."""
    return Ablation(
        steps=(), lengths_N=np.array([10, 20, 30, 40]), labels_N=None, description="a|b on c"
    )


@pytest.fixture
def make_result():
    """Function that makes the result of a step, of which only the seconds need be said."""

    def make(seconds, **changes):
        fields = {
            "name": f"step of {seconds:g} s",
            "seconds": seconds,
            "accuracy": 0.74014,
            "usd_per_100m": 4223.4,
            "cumulative": 1234.567,
            "step": 1.5,
            "tokenization_s": 0.5,
            "total_s": seconds + 0.5,
            "rows": 4,
            "timed_rows": 4,
            "standard_error_s": None,
            "runs_s": (seconds,),
            "note": f"how {seconds:g} came",
            "is_aside": False,
        }
        return StepResult(**{**fields, **changes})

    return make
