import json
from dataclasses import fields, replace

import pytest

from fastformers.errors import InputError
from fastformers.jobs.benchmarks.bench_report import FORMAT_VERSION, BenchReport, load_report
from fastformers.jobs.benchmarks.parts import BaselinesPart, NotRun, RatioRange
from fastformers.jobs.benchmarks.peers.catalog import JOB_BASELINES

BASELINES = {f"job_over_{name.replace('-', '_')}": None for name in JOB_BASELINES}
RATIOS = {
    "engine_over_stock": 3.0,
    "engine_over_openvino": 1.5,
    "engine_of_peak": 0.5,
    "job_over_engine": 0.75,
    "job_over_best_ray_data": 2.25,
    "job_over_best_sentence_transformers": None,
    **BASELINES,
    "job_over_ray_tuned": 2.25,
    "job_over_ray_padded_64": 4.0,
    "job_over_fasttext": 0.01,
}
PARTS = ("engines", "operators", "job", "job_baselines")


def test_the_last_line_is_flat_and_has_the_keys_that_users_know(bench_report):
    content = bench_report.to_json()
    assert content == json.loads(json.dumps(content))
    assert content["format_version"] == FORMAT_VERSION
    assert {key: content[key] for key in RATIOS} == RATIOS
    missing = {key for key, ratio in RATIOS.items() if ratio is None}
    failed = {"job_over_sentence_transformers_onnx": "OSError: [/tmp/x]: pip install 'a[b]'"}
    assert content["not_run"] == dict.fromkeys(missing, "--peers leaves it out") | failed
    assert content.keys() == {
        *("format_version", "engine", "max_batch_tokens", "precision", "weights", "corpus"),
        *("cpu_model", "cores", "versions", "repeats", "measured_at", "not_run", *RATIOS),
        *("engine_over_stock_by_case", "engine_over_openvino_by_case", "engines"),
        *("engine_of_peak_by_case", "int8_gops", "float_gops", "operators"),
        "whole_model_at_peak_tokens_per_second",
        *("job_rows_per_second", "engine_rows_per_second", "job_wall_s", "rows", "unique_rows"),
        *("tokens", "saved_by_scoring_equal_texts_once", "padding_efficiency", "phase_s"),
        *("predicted_over_inferred", "num_actors"),
        *("ours_beside_peers", "peers", "profile"),
    }
    assert content["engines"][1] == {
        "num_threads": 4,
        "tokens_per_second": {"8x128": {"PyTorch": 7.0}},
        "agreement": {},
    }
    assert content["operators"]["stock"] == {"MatMul": 0.875}
    assert content["engine_of_peak_by_case"] == {"1x128": 0.5, "8x128": 0.625}
    assert content["peers"]["ray-tuned"] == {
        "rows_per_second": 40.0,
        "rows_per_second_by_turn": [40.0, 40.0, 40.0],
        "rows": 2500,
        "seconds": 62.5,
        "startup_s": 12.5,
        "accuracy": 0.91,
        "setting": "3 actors [tuned]",
        "versions": {"ray": "2.50"},
    }
    assert list(content["peers"]) == ["ray-tuned", "ray-padded-64", "fasttext"]


def test_what_is_written_is_read_as_it_was(bench_report, tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(bench_report.to_json()))
    assert load_report(path) == bench_report


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_did_not_run_is_its_reason(bench_report, part):
    alone = replace(bench_report, **{part: NotRun(reason=f"no {part}")})
    content = alone.to_json()
    missing = {key for key in RATIOS if content[key] is None}
    assert missing - content["not_run"].keys() == set()
    assert f"no {part}" in content["not_run"].values()
    assert BenchReport.from_json(content, path="kept.json") == alone


def test_a_report_of_nothing_but_reasons(bench_report):
    empty = replace(bench_report, profile=None, **dict.fromkeys(PARTS, NotRun(reason="no time")))
    content = empty.to_json()
    assert content["not_run"] == dict.fromkeys(RATIOS, "no time")
    assert BenchReport.from_json(content, path="kept.json") == empty


@pytest.mark.parametrize("ratio", ["over_stock", "over_openvino"])
def test_a_ratio_that_could_not_be_formed_is_its_reason(bench_report, ratio):
    engines = replace(bench_report.engines, **{ratio: NotRun(reason="no --teacher")})
    alone = replace(bench_report, engines=engines)
    content = alone.to_json()
    assert (content[f"engine_{ratio}"], content[f"engine_{ratio}_by_case"]) == (None, {})
    assert content["not_run"][f"engine_{ratio}"] == "no --teacher"
    assert BenchReport.from_json(content, path="kept.json") == alone


def test_every_key_is_needed_and_of_its_type(bench_report):
    """All but the profile's, which is there only if one was asked for."""
    content = bench_report.to_json()
    # These say which parts ran, so without them there is a reason to look for, and none is there.
    for key in content.keys() - {"profile"}:
        less = {name: value for name, value in content.items() if name != key}
        if key.startswith("job_over_"):  # computed from the rates
            continue
        with pytest.raises(InputError, match=r"^kept\.json: "):
            BenchReport.from_json(less, path="kept.json")
    for key, wrong in (
        ("engine", 1),
        ("rows", "many"),
        ("engines", {}),
        ("peers", {"ray-tuned": 1}),
    ):
        with pytest.raises(InputError, match=rf"^kept\.json: damaged: {key}"):
            BenchReport.from_json({**content, key: wrong}, path="kept.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not the last line of `fastformers bench`"),
        ("[]", "is not the last line of `fastformers bench`"),
        ('{"rows": 1}', "is not the last line of `fastformers bench`"),
        ('{"not_run": {}}', "is a report of format 0, and this version reads 2; measure again"),
        ('{"not_run": {}, "format_version": 3}', "is a report of format 3"),
        ('{"not_run": {}, "format_version": 2}', "damaged: engine is missing"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, message):
    path = tmp_path / "kept.json"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_report(path)
    assert str(error.value).startswith(f"{path}: {message}")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"kept\.json: No such file"):
        load_report(tmp_path / "kept.json")


def test_every_baseline_has_its_ratio(bench_report):
    baselines = bench_report.job_baselines
    assert isinstance(baselines, BaselinesPart)
    assert list(baselines.measured()) == ["ray-tuned", "ray-padded-64", "fasttext"]
    assert baselines.our_ratio("ray-tuned") == RatioRange(value=2.25, least=2.0, most=2.5)
    assert baselines.fastest("ray-data") == "ray-tuned"
    assert baselines.our_ratio("pipeline") == NotRun(reason="--peers leaves it out")
    assert {field.name for field in fields(bench_report)} > set(PARTS)
