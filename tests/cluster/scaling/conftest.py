"""The report of a scaling test, for those who show it."""

from dataclasses import replace

import pytest

from fastformers.cluster.scaling.laws import Estimate
from fastformers.cluster.scaling.scale_report import (
    CheckedPoint,
    DriverLoad,
    ScalePoint,
    ScaleReport,
    SimulationInputs,
    UniversalLaw,
)


def make_point(kind, actors, efficiency, usd):
    rate = 500.0 * actors * efficiency
    return ScalePoint(
        kind=kind,
        actors=actors,
        nodes=-(-actors // 4),
        rows_per_second=rate,
        rows_per_second_low=0.97 * rate,
        rows_per_second_high=1.02 * rate,
        job_rows_per_second=0.8 * rate,
        speedup=actors * efficiency,
        efficiency=efficiency,
        usd_per_million=usd,
    )


@pytest.fixture
def make_scale_report():
    """Makes a report, with some of its attributes changed."""
    strong = [
        make_point("strong", n, e, u) for n, e, u in ((1, 1, 0.4), (4, 0.96, 0.1), (8, 0.9, 0.11))
    ]
    weak = [make_point("weak", n, e, u) for n, e, u in ((1, 1, 0.4), (4, 0.97, 0.1))]
    report = ScaleReport(
        corpus="s3://bucket/<corpus>/",
        bundle="bundles/b",
        bundle_digest="ab" * 32,
        engine="onnxruntime",
        rows=100_000,
        shards=200,
        cpu_model="AMD EPYC",
        actors_per_node=4,
        cores_per_actor=1,
        repeats=3,
        measured_at="2026-11-26T00:00:00+00:00",
        usd_per_hour=0.17,
        price="0.17 USD per hour, as given",
        points=(*strong, *weak),
        serial_share=Estimate(value=0.013, low=0.011, high=0.02),
        universal_law=UniversalLaw(
            sigma=Estimate(value=0.01, low=0.0, high=0.02),
            kappa=Estimate(value=0.0004, low=0.0001, high=0.001),
            knee=49.7,
        ),
        cheapest=strong[1],
        checked=(
            CheckedPoint(
                kind="strong", actors=4, nodes=1, measured_s=50.0, simulated_s=51.0, error=0.02
            ),
        ),
        is_believed=True,
        simulated=tuple(make_point("strong", n, 0.93, 0.1) for n in (1, 16, 1000)),
        limits=None,
        driver=(
            DriverLoad(
                slots=10_000,
                nodes=625,
                are_actors=False,
                shard_s=20.0,
                shards=50_000,
                calls=60_000,
                shards_per_second=5000.0,
                us_per_shard=90.0,
                ms_per_lease=0.05,
                ms_per_empty_lease=None,
                supervisor_us_per_shard=110.0,
            ),
        ),
        inputs=SimulationInputs(
            seconds_over_predicted=(0.8, 0.9, 1.1),
            actor_startup_s=2.5,
            shard_seconds=20.0,
            shards=100_000,
            interruptions_per_hour=0.05,
            failures_per_hour=0.0,
            assumptions=("nodes of 4 actors, 5% apart in speed (assumed)",),
        ),
    )
    return lambda **changes: replace(report, **changes)
