"""A run whose actors die, or hang, on one text: `deadly_run.py CORPUS BUNDLE OUTPUT die|hang`."""

import os
import sys
import time
from pathlib import Path

import ray

import fastformers.inference.engine
from fastformers.cluster.execution.job import open_score_job
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.nodes.connect import connect
from fastformers.cluster.settings import ActorSettings, CorpusSettings


def arm(deed: str) -> None:
    """Make this process's engine die, or hang, on a row of four equal words."""
    run = fastformers.inference.engine.OnnxEngine.run

    def deadly(self, ids_BT, types_BT):
        words_BT = ids_BT[:, 1:-1]
        is_warm_up = (ids_BT == 5).all()
        four_equal = words_BT.shape[1] == 4 and (words_BT == words_BT[:, :1]).all(axis=1).any()
        if four_equal and not is_warm_up:
            os._exit(1) if deed == "die" else time.sleep(3600)
        return run(self, ids_BT, types_BT)

    fastformers.inference.engine.OnnxEngine.run = deadly


if __name__ == "__main__":
    corpus, bundle, output, deed = sys.argv[1:]
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"worker_process_setup_hook": lambda: arm(deed)},
    )
    job = open_score_job(
        corpus,
        Path(bundle),
        output,
        CorpusSettings(keep_columns=("id",)),
        max_batch_tokens=None,
    )
    actors = ActorSettings(num_actors=1, timeout_s=2.0 if deed == "hang" else None)
    run_job(job, actors, connect, log=print)
    ray.shutdown()
