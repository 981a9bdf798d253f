"""A job on Ray nodes of which one is bad, one is killed and one joins: `three_nodes.py JOB OUTPUT`.

JOB is a JSON object: corpus, bundle, shard_seconds, keep, num_rows_before_events. The last line of
stdout is one JSON object with what happened. All nodes are on this machine, so that their actors
share its cores; the head is not to work.
"""

import json
import logging
import sys
import threading
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from cluster.execution.job import open_score_job
from cluster.execution.run import run_job
from cluster.nodes.connect import connect
from cluster.settings import ActorSettings, CorpusSettings

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def open_job(what, output):
    return open_score_job(
        what["corpus"],
        Path(what["bundle"]),
        output,
        CorpusSettings(keep_columns=tuple(what["keep"]), shard_seconds=what["shard_seconds"]),
        max_batch_tokens=what["max_batch_tokens"],
        fail_on_bad_row=False,
    )


def main(what, output):
    what = json.loads(what)
    lines = Lines()
    logging.getLogger("cluster").addHandler(lines)
    cluster = Cluster(
        initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False}
    )
    stays, goes = cluster.add_node(**NODE), cluster.add_node(**NODE)
    cluster.add_node(**NODE, env_vars=what["bad_environment"])  # bad from the start
    seen, happened = [], threading.Event()

    def change_cluster():
        happened.wait()
        cluster.remove_node(goes, allow_graceful=False)
        cluster.add_node(**NODE)

    changer = threading.Thread(target=change_cluster)
    changer.start()

    def watch(progress):
        seen.append((progress.num_nodes, progress.num_done))
        if progress.num_rows >= what["num_rows_before_events"] and progress.num_nodes > 1:
            happened.set()

    start = time.monotonic()
    try:
        with connect(cluster.address):
            actors = ActorSettings()
            result = run_job(open_job(what, output), actors, connect, on_progress=watch)
    finally:
        happened.set()
        changer.join()
        cluster.shutdown()
    print(
        json.dumps(
            {
                "nodes": [
                    {
                        "node": use.node,
                        "joined_s": use.joined_s,
                        "left_s": use.left_s,
                        "reason": use.reason,
                        "num_actors": len(use.actor_cores),
                    }
                    for use in result.nodes
                ],
                "stays": stays.node_id,
                "goes": goes.node_id,
                "num_retries": result.tally.num_retries,
                "num_shards": result.tally.known.num_shards,
                "lines": lines.lines,
                "seen": seen,
                "seconds": time.monotonic() - start,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
