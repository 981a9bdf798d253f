"""Types to plan with."""

from fastformers.cluster.cost.planning.offers import HelperOffer, MachineOffer


def make_offer(**changes):
    """A type of 16 cores whose pace was measured, unless `changes` say otherwise."""
    fields = {
        "instance_type": "x.large",
        "usd_per_hour": 0.8,
        "worker_usd_per_hour": 0.8,
        "num_actors": 16,
        "job_s": 100_000.0,
        "shard_s": 20.0,
    }
    return MachineOffer(**(fields | changes))


# A GPU that scores the job in 1,000 s; its own cores tokenize it in 4,000 s, a helper in 1,000 s.
SLOW_HOST = make_offer(
    instance_type="gpu.large",
    usd_per_hour=4.0,
    worker_usd_per_hour=4.0,
    num_actors=1,
    job_s=4000.0,
    shard_s=10.0,
    uses_gpus=True,
    helper=HelperOffer(
        instance_type="cpu.large", usd_per_hour=0.5, gpu_s=1000.0, own_s=4000.0, helper_s=1000.0
    ),
)
