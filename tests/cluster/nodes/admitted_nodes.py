"""Starts a supervisor on Ray nodes of several kinds: `admitted_nodes.py JOB OUTPUT`.

JOB is a JSON object: corpus, bundle, auditor, environments (of each node, by name). The last line
of stdout is one JSON object: what became of each node, and how many rows a run scored and audited
on those that are fit. All nodes are on this machine; the head is not to work.
"""

import json
import sys

from ray.cluster_utils import Cluster

from fastformers.cluster.execution.claim import claimed
from fastformers.cluster.execution.job import open_score_job
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.nodes.admission import plan_admission
from fastformers.cluster.nodes.cluster_state import KindsOfActors, NodeState
from fastformers.cluster.nodes.connect import connect
from fastformers.cluster.nodes.supervisor_actor import NodePlan, RaySupervisor
from fastformers.cluster.settings import ActorSettings, AuditSettings, CorpusSettings

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def try_node(node, spec, admission):
    """ "fit", or what the node says is wrong with it."""
    plan = NodePlan(
        state=NodeState(id=node, hostname="here", num_cpus=1.0, free_cpus=1.0),
        name=None,
        spec=spec,
        admission=admission,
        num_actors=1,
        kinds=KindsOfActors(scorers=("cpu",), prepares=True, cores_per_actor=1),
        timeout_s=None,
    )
    supervisor = RaySupervisor(plan)
    try:
        supervisor.start().result(timeout=120)
    except Exception as error:
        return supervisor.explain(error)
    finally:
        supervisor.kill()
    return "fit"


def main(what, output):
    what = json.loads(what)
    cluster = Cluster(
        initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False}
    )
    nodes = {
        name: cluster.add_node(**NODE, env_vars=environment)
        for name, environment in what["environments"].items()
    }
    job = open_score_job(
        what["corpus"],
        what["bundle"],
        output,
        CorpusSettings(),
        max_batch_tokens=256,
        audit=AuditSettings(share=0.5, bundle=what["auditor"]),
    )
    with claimed(job):  # makes its directories
        pass
    try:
        with connect(cluster.address):
            spec = job.worker_spec()
            admission = plan_admission(spec)
            found = {name: try_node(node.node_id, spec, admission) for name, node in nodes.items()}
            for name, answer in found.items():
                if answer != "fit":
                    cluster.remove_node(nodes[name])
            result = run_job(job, ActorSettings(), connect)
    finally:
        cluster.shutdown()
    audit = result.tally.scored.audit
    rows = {"num_rows": result.tally.known.num_rows, "num_audited": audit.num_rows}
    print(json.dumps({"found": found, "num_equal": audit.num_equal, **rows}))


if __name__ == "__main__":
    main(*sys.argv[1:])
