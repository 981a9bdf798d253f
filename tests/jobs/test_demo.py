"""The demo's own bundle, and that everything it needs is in the base install."""

import subprocess
import sys

import pytest

from fastformers import Scorer, open_bundle
from fastformers.inference.bundle import DEMO_BUNDLE
from fastformers.jobs.console.cli import main

BANNED = ("torch", "transformers", "onnx")


def test_bundle_is_whole_small_and_proven():
    bundle = open_bundle(DEMO_BUNDLE)
    assert sum(f.stat().st_size for f in DEMO_BUNDLE.iterdir()) <= 8e6
    assert bundle.precision == "int8"
    assert [stage.stage for stage in bundle.stages] == [
        *("teacher", "trim_vocabulary", "export", "quantize")
    ]
    assert bundle.stages[-1].quality > bundle.stages[0].quality - 0.01


def test_bundle_knows_its_libraries():
    texts = [
        "Return a new array of given shape and type, filled with zeros. dtype : data-type",
        "Execute this Dataset and count its rows. The number of blocks of the Dataset.",
    ]
    assert Scorer(DEMO_BUNDLE).score(texts).labels == ["numpy", "ray.data"]


def test_print_bundle(capsys):
    assert main(["demo", "--print-bundle"]) == 0
    assert capsys.readouterr().out.strip() == str(DEMO_BUNDLE)


@pytest.mark.parametrize(
    "module",
    [
        "fastformers.jobs.score",
        "fastformers.jobs.demo",
        "fastformers.cluster.execution.worker",
        "fastformers",
    ],
)
def test_scoring_imports_nothing_of_the_offline_half(module):
    code = f"import sys, {module}; print([m for m in {BANNED} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
