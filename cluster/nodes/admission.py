"""Whether a node may work: asked there, in a process whose memory is given back.

    job -> [admission] in the driver -> Admission -> [admission] on a node -> its copy of the bundle

The check loads an engine and the model, so it runs in a task of its own, and the process of the
task ends with it. The bundle's bytes lie in Ray's object store, for nodes that cannot read its
source.
"""

from dataclasses import dataclass, replace

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fastformers.cluster.delivery.node_check import NodeCheck, check_node, make_node_check
from fastformers.cluster.execution.worker import WorkerSpec
from fastformers.cluster.nodes.ray_pool import say_error
from fastformers.errors import NodeUnfitError
from fastformers.inference.engine import Device
from fastformers.inference.engines import REFERENCE_ENGINE


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What a node must pass before it works.

    Attributes:
        check: What the driver asks for.
        packed: The packed bundle, in Ray's object store.
        packed_audit: The packed bundle that audits, there too; None without one.
    """

    check: NodeCheck
    packed: "ray.ObjectRef[bytes]"
    packed_audit: "ray.ObjectRef[bytes] | None"


def plan_admission(spec: WorkerSpec, device: Device = "cpu") -> Admission:
    """Ask of every node what the driver has; loads the model for a moment if such nodes score.

    Args:
        spec: Description of the work.
        device: Kind of the nodes.

    Raises:
        BundleError: The bundle cannot score anything.
    """
    scoring = spec.scorings[device] if spec.scores_on(device) else None
    writes_shards = spec.preparation is not None
    written = (spec.shards if writes_shards else None, spec.predictions)
    auditor = None if scoring is None or spec.audit is None else spec.audit.bundle
    check = make_node_check(
        spec.bundle,
        auditor=auditor,
        engine=None if scoring is None else scoring.engine,
        precision=None if scoring is None else scoring.precision,
        computed_by=REFERENCE_ENGINE if device == "cuda" else None,
        readable=() if writes_shards else (spec.shards,),
        writable=tuple(directory for directory in written if directory is not None),
    )
    return Admission(
        check=check,
        packed=ray.put(spec.bundle.pack()),
        packed_audit=None if auditor is None else ray.put(auditor.pack()),
    )


def admit(admission: Admission, spec: WorkerSpec, *, node: str, num_gpus: float = 0) -> WorkerSpec:
    """Check this node; its copies of the bundles stay for as long as this process lives.

    Args:
        admission: What must be passed.
        spec: Description of the work.
        node: Ray's identifier of the node that this process is on.
        num_gpus: GPUs that the check needs: without any, Ray hides all of them from it.

    Returns:
        The work, with the bundles as they are on this node.

    Raises:
        NodeUnfitError: The node cannot do the work; one line says why.
    """
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    try:
        ray.get(_check_here.options(scheduling_strategy=here, num_gpus=num_gpus).remote(admission))
    except RayError as error:
        raise NodeUnfitError(say_error(error)) from None
    spec = replace(spec, bundle=admission.check.bundle.deliver(None))
    if spec.audit is None or admission.check.auditor is None:
        return spec
    return replace(spec, audit=replace(spec.audit, bundle=admission.check.auditor.deliver(None)))


def _check(admission: Admission) -> None:
    packed_audit = admission.packed_audit
    check_node(
        admission.check,
        fetch=lambda: ray.get(admission.packed),
        fetch_auditor=None if packed_audit is None else lambda: ray.get(packed_audit),
    )


_check_here = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(_check)
