"""The figures of a GPU in the README are those that were measured."""

import json
from pathlib import Path

import pytest

import fastformers.benchmark

FOLDER = Path(fastformers.benchmark.__path__[0])
MEASURED = json.loads((FOLDER / "gpu.json").read_text())


@pytest.fixture(scope="module")
def section():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    return text.partition("## On a GPU\n")[2].partition("\n## ")[0]


def cells(section, start):
    [row] = [line for line in section.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip(" *") for cell in row.split("|")[2:-1]]


def test_the_table_of_shapes_is_what_was_measured(section):
    shapes = [MEASURED["shapes"][name] for name in ("bert-base", "student")]
    ours = [rates["rows_per_second"]["fastformers float16"] for rates in shapes]
    assert cells(section, "ours, rows/s") == [f"{rate:,.0f}" for rate in ours]
    for start, key, spelled in (
        ("over PyTorch float32", "over_float32", "{:.1f}x"),
        ("over PyTorch float16", "over_float16", "{:.2f}x"),
        ("share of the card", "share_of_peak", "{:.0%}"),
        ("busy, by NVML", "busy", "{:.0%}"),
        ("largest difference of a row", "batch_difference", "{:.1e}"),
        ("largest difference of a logit from", "pytorch_difference", "{:.1e}"),
    ):
        assert cells(section, start) == [spelled.format(rates[key]) for rates in shapes], start
    assert f"{MEASURED['peak_tflops']:.0f} TFLOP/s" in section
    assert MEASURED["card"].endswith("H200")


def test_the_whole_job_is_what_was_measured(section):
    job = MEASURED["jobs"]["student"]
    for figure in (
        f"{job['rows']:,} paragraphs",
        f"{job['tokens']:,} tokens",
        f"{job['rows_per_second']:,.0f} rows/s",
        f"start of {job['setup_s']:.1f} s",
        f"{job['scoring_rows_per_second']:,.0f} rows/s",
        f"{job['usd_per_million']:.4f} USD a million",
        f"busy {job['busy']:.0%}",
        f"{job['prepare_s']:.0f} s",
    ):
        assert figure in section.replace("\n", " "), figure
