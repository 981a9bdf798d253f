"""Measure how much of the engine's own speed a whole job keeps.

fastformers bench CORPUS --bundle BUNDLE

First the whole job: start Ray, read, tokenize, score, write. Then the same actors on the same cores
run the same batches, already tokenized and in memory, and nothing else. The ratio of their rows per
second is what reading, tokenizing, writing, scheduling and idle cores cost. Shards and predictions
stay under `--output`, where it is given.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray  # noqa: TID253 - this job talks to actors directly

from cluster.plan import plan_prepare, plan_score
from cluster.pool import connect, plan_pool
from cluster.prepared import load_shards
from cluster.run import ScoreRun
from cluster.shards import Shard
from fastformers.cost_profile import read_cpu_model
from jobs.cli import console, run
from jobs.score import (
    actor_settings,
    add_corpus_arguments,
    corpus_settings,
    execute,
    price_of,
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers bench`."""
    parser = argparse.ArgumentParser(
        prog="fastformers bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", help="file, directory, glob or URI")
    add_corpus_arguments(parser, needs_output=False)
    parser.add_argument("--repeats", type=int, default=1, help="of both, in turn (default 1)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers bench`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        if options.output is not None:
            return _bench(options, options.output)
        with tempfile.TemporaryDirectory(prefix="fastformers-bench-") as scratch:
            return _bench(options, scratch)

    return run(job)


def _bench(options: argparse.Namespace, scratch: str) -> dict[str, Any]:
    settings, actors, price = corpus_settings(options), actor_settings(options), price_of(options)
    prepare_run = plan_prepare(options.corpus, options.bundle, f"{scratch}/shards", settings)
    execute(prepare_run, actors, price)
    jobs: list[dict[str, Any]] = []
    engines: list[float] = []
    for repeat in range(options.repeats):
        score_run = plan_score(
            options.corpus,
            options.bundle,
            f"{scratch}/scored-{repeat}",
            settings,
            max_batch_tokens=None,
            fail_on_bad_row=False,
        )
        jobs.append(execute(score_run, actors, price))
        engines.append(_measure_engine(replace(score_run, shards=prepare_run.shards), actors))
        console.print(
            f"job {jobs[-1]['rows_per_second']:,.1f} rows/s, engine alone {engines[-1]:,.1f} rows/s"
        )
    job_rate = statistics.median(report["rows_per_second"] for report in jobs)
    engine_rate = statistics.median(engines)
    console.print(f"the whole job keeps {100 * job_rate / engine_rate:.1f}% of the engine's rows/s")
    return {
        "job_over_engine": job_rate / engine_rate,
        "job_rows_per_second": job_rate,
        "engine_rows_per_second": engine_rate,
        "job_wall_s": [report["wall_s"] for report in jobs],
        "rows": jobs[0]["rows"],
        "unique_rows": jobs[0]["unique_rows"],
        "tokens": jobs[0]["tokens"],
        "padding_efficiency": jobs[0]["padding_efficiency"],
        "phase_s": jobs[0]["phase_s"],
        "num_actors": jobs[0]["num_actors"],
        "repeats": options.repeats,
        "engine": score_run.bundle.cost_profile.engine,
        "max_batch_tokens": score_run.max_batch_tokens,
        "cpu_model": read_cpu_model(),
        "measured_at": time.strftime("%Y-%m-%d"),
    }


def _measure_engine(score_run: ScoreRun, actors: Any) -> float:
    """Rows per second of all actors' engines, each on its share of the shards, all at once."""
    shards = load_shards(score_run.shards)
    with connect(actors.address):
        pool = plan_pool(
            score_run.work(),
            num_actors=actors.num_actors,
            cores_per_actor=actors.cores_per_actor or 1,
            oversubscribe=actors.oversubscribe,
        )
        pool.start()
        try:
            shares = _deal(shards, len(pool.slots))
            running = [
                slot.actor.measure_engine.remote(share)
                for slot, share in zip(pool.slots, shares, strict=True)
            ]
            seconds = ray.get(running)
        finally:
            pool.stop()
    rows = [sum(shard.num_rows for shard in share) for share in shares]
    return float(sum(r / s for r, s in zip(rows, seconds, strict=True)))


def _deal(shards: list[Shard], num_shares: int) -> list[list[Shard]]:
    """Shares of about equal predicted cost: each shard goes to the share with the least."""
    shares: list[list[Shard]] = [[] for _ in range(num_shares)]
    for shard in sorted(shards, key=lambda shard: -shard.predicted_s):
        min(shares, key=lambda share: sum(s.predicted_s for s in share)).append(shard)
    return shares


if __name__ == "__main__":
    sys.exit(main())
