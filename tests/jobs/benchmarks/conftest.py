import pytest

from fastformers.jobs.benchmarks.bench_report import BenchReport
from fastformers.jobs.benchmarks.parts import (
    BaselineRate,
    BaselinesPart,
    EngineRates,
    EnginesPart,
    JobPart,
    NotRun,
    OperatorShares,
    OperatorsPart,
    Ratio,
)
from fastformers.jobs.benchmarks.peers.catalog import JOB_BASELINES


@pytest.fixture(scope="session")
def bench_report():
    """A report in which every part ran, three job baselines did, and no number is another."""
    return BenchReport(
        engine="onnxruntime",
        max_batch_tokens=2048,
        precision="int8",
        weights="my-model",
        corpus="s3://bucket/reviews/test.parquet",
        cpu_model="a processor",
        cores=4,
        versions={"fastformers": "0.1.0", "onnxruntime": "1.23"},
        repeats=3,
        measured_at="2026-11-24",
        engines=EnginesPart(
            over_stock=Ratio(value=3.0, by_case={"8x128": 2.5, "rows": 3.0}),
            over_openvino=Ratio(value=1.5, by_case={"8x128": 2.0, "rows": 1.5}),
            rates=(
                EngineRates(
                    num_threads=1,
                    tokens_per_second={
                        "8x128": {"fastformers onnxruntime": 1200.0, "ORT stock int8": 480.0},
                        "rows": {"fastformers onnxruntime": 1230.0, "ORT stock int8": 410.0},
                    },
                    agreement={"fastformers onnxruntime": 1.0, "ORT stock int8": 0.985},
                ),
                EngineRates(
                    num_threads=4, tokens_per_second={"8x128": {"PyTorch": 7.0}}, agreement={}
                ),
            ),
        ),
        operators=OperatorsPart(
            of_peak=Ratio(value=0.5, by_case={"1x128": 0.5, "8x128": 0.625}),
            int8_gops=240.0,
            float_gops=120.0,
            whole_model_at_peak_tokens_per_second={"8x128": 1600.0},
            operators=OperatorShares(
                case="8x128",
                ours={"MatMul": 0.75, "Gelu": 0.245, "Shape": 0.005},
                ours_of_peak={"MatMul": 0.6},
                stock={"MatMul": 0.875},
            ),
        ),
        job=JobPart(
            job_rows_per_second=150.0,
            engine_rows_per_second=200.0,
            job_wall_s=(10.0, 11.0, 12.0),
            rows=1650,
            unique_rows=1500,
            tokens=99_000,
            saved_by_scoring_equal_texts_once=0.125,
            padding_efficiency=0.96875,
            phase_s={"read": 1.0, "infer": 8.0},
            predicted_over_inferred=1.0625,
            num_actors=2,
        ),
        job_baselines=BaselinesPart(
            ours=BaselineRate(
                rows_per_second=90.0,
                rows_per_second_by_turn=(80.0, 90.0, 100.0),
                rows=5000,
                seconds=55.5,
                startup_s=8.5,
                accuracy=0.9125,
                setting="int8, engine onnxruntime, 4 actors",
                versions={"fastformers": "0.1.0"},
            ),
            by_name=dict.fromkeys(JOB_BASELINES, NotRun(reason="--peers leaves it out"))
            | {
                "ray-tuned": BaselineRate(
                    rows_per_second=40.0,
                    rows_per_second_by_turn=(40.0, 40.0, 40.0),
                    rows=2500,
                    seconds=62.5,
                    startup_s=12.5,
                    accuracy=0.91,
                    setting="3 actors [tuned]",
                    versions={"ray": "2.50"},
                ),
                "sentence-transformers-onnx": NotRun(
                    reason="OSError: [/tmp/x]: pip install 'a[b]'"
                ),
                "ray-padded-64": BaselineRate(
                    rows_per_second=25.0,
                    rows_per_second_by_turn=(20.0, 25.0, 25.0),
                    rows=1500,
                    seconds=60.0,
                    startup_s=None,
                    accuracy=None,
                    setting="3 actors",
                    versions={"ray": "2.50"},
                ),
                "fasttext": BaselineRate(
                    rows_per_second=9000.0,
                    rows_per_second_by_turn=(9000.0, 9000.0, 9000.0),
                    rows=5000,
                    seconds=0.5,
                    startup_s=1.0,
                    accuracy=0.85,
                    setting="ten dimensions",
                    versions={"fasttext": "0.9"},
                ),
            },
        ),
        profile="profiles/here.json",
    )
