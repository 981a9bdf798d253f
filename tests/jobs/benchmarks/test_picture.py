import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import get_args

import pytest

from fastformers.errors import InputError
from fastformers.jobs.benchmarks import picture
from fastformers.jobs.benchmarks.parts import NotRun
from fastformers.jobs.benchmarks.peers.catalog import JOB_BASELINES, BaselineName
from fastformers.jobs.benchmarks.picture import draw_whole_jobs

pytest.importorskip("matplotlib", reason="the picture needs the extra `report`")


def words_of(path):
    return " ".join(" ".join(ElementTree.parse(path).getroot().itertext()).split())


def test_every_job_that_ran_has_its_bar_with_our_ratio(bench_report, tmp_path):
    draw_whole_jobs(bench_report, tmp_path / "bench.svg")
    words = words_of(tmp_path / "bench.svg")
    for label in ("90 rows/s", "40 rows/s (fastformers: 2.2x)", "25 rows/s (fastformers: 4.0x)"):
        assert label in words
    for name in ("fastformers", "Ray Data, tuned", "Ray Data, padded"):
        assert name in words
    for absent in ("Hugging Face pipeline", "sentence-transformers", "fastText"):
        assert absent not in words


def test_bars_are_as_long_as_the_rates_and_ours_comes_first(bench_report):
    bars = picture._plan_bars(bench_report.job_baselines)
    assert [(bar.name, bar.value) for bar in bars] == [
        ("fastformers", 90.0),
        ("Ray Data, tuned", 40.0),
        ("Ray Data, padded\nbatches of 64", 25.0),
    ]
    assert bars[0].color not in {bar.color for bar in bars[1:]}
    assert JOB_BASELINES.keys() == set(get_args(BaselineName))


def test_the_caption_has_machine_texts_versions_and_date(bench_report, tmp_path):
    draw_whole_jobs(bench_report, tmp_path / "bench.svg")
    words = words_of(tmp_path / "bench.svg")
    for shown in (
        "5,000 different texts of test.parquet, 4 cores of a processor, 2026-11-24, "
        "median of 3 runs.",
        "fastformers: my-model, int8, engine onnxruntime (fastformers 0.1.0, onnxruntime 1.23).",
        "Ray Data, tuned: 3 actors [tuned] (ray 2.50).",
        "Ray Data, padded batches of 64: 3 actors (ray 2.50).",
    ):
        assert shown in words


def test_a_long_caption_is_broken_into_lines_and_has_room(bench_report, tmp_path):
    long = replace(bench_report, cpu_model="a processor of a very long name " * 9)
    heights = []
    for report in (bench_report, long):
        draw_whole_jobs(report, tmp_path / "bench.svg")
        heights.append(
            float(ElementTree.parse(tmp_path / "bench.svg").getroot().get("height")[:-2])
        )
    assert heights[1] > heights[0] + 2 * picture._LINE_HEIGHT - 1


def test_it_is_a_png_if_its_name_says_so_and_has_a_background(bench_report, tmp_path):
    draw_whole_jobs(bench_report, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    draw_whole_jobs(bench_report, tmp_path / "bench.svg")
    assert "fill: #ffffff" in (tmp_path / "bench.svg").read_text()


def test_without_whole_jobs_there_is_nothing_to_draw(bench_report, tmp_path):
    empty = replace(bench_report, job_baselines=NotRun(reason="no corpus"))
    with pytest.raises(InputError, match=r"bench\.svg: no whole jobs were measured: no corpus"):
        draw_whole_jobs(empty, tmp_path / "bench.svg")
    assert list(tmp_path.iterdir()) == []
