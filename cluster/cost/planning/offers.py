"""What is asked of a cluster, and the machines that could be rented for it.

    instance costs, flags -> [offers] -> candidates -> plan

Plain values; this module knows nothing of how a cluster is chosen.
"""

from dataclasses import dataclass, field

from fastformers.options import check_at_least, check_option, check_positive, option


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What is asked of a cluster, and what is assumed of it.

    Attributes:
        deadline_s: Seconds from asking for machines to the last prediction; None for any.
        budget_usd: Highest cost; None for any.
        confidence: Chance with which deadline and budget are kept, 0-1.
        spot: Whether all machines but the head are spot machines. Its flag is made by hand, because
            the market of `CostSettings` follows from it too.
        seed: Seed of all that is simulated, that of `CostSettings`.
    """

    deadline_s: float | None = field(
        default=None,
        metadata=option(
            "90m, 6h, 2d: plan the cheapest cluster that meets it (none)",
            name="deadline",
            metavar="TIME",
        ),
    )
    budget_usd: float | None = field(
        default=None,
        metadata=option(
            "without a deadline: plan the fastest cluster for it (none)",
            name="budget",
            metavar="USD",
        ),
    )
    confidence: float = field(
        default=0.95,
        metadata=option(
            "chance (0.5-0.99) with which deadline and budget are kept, simulated", metavar="CHANCE"
        ),
    )
    max_instances: int = field(
        default=100, metadata=option("largest number of machines, head and helpers among them")
    )
    spot: bool = False
    seed: int = 0
    # From asking for a machine to its first shard: boot, installation, bundle, Ray. Assumed: about
    # one minute for a cloud to boot, two for pip.
    startup_s: float = field(default=180.0, metadata=option("seconds until a machine works"))
    # Assumed: Google has seen 5 to 15% of preemptible machines interrupted per day (0.002 to 0.007
    # per hour), and AWS lists most types below 20% per month; both are averages, and busy days are
    # worse.
    interruptions_per_hour: float = field(
        default=0.05, metadata=option("interruptions of a spot machine per hour")
    )

    def __post_init__(self) -> None:
        check_positive(self, "deadline_s", "budget_usd")
        # What is assumed of machines says nothing of what happens once in a thousand runs.
        is_chance = 0.5 <= self.confidence <= 0.99
        check_option(self, "confidence", is_chance, "a chance from 0.5 to 0.99")
        check_at_least(self, 1, "max_instances")
        check_at_least(self, 0, "startup_s", "interruptions_per_hour")


@dataclass(frozen=True, kw_only=True)
class HelperOffer:
    """Machines without GPUs that could tokenize for those with GPUs.

    Attributes:
        instance_type: Name of their type.
        usd_per_hour: Price of one; none is ever the head.
        gpu_s: Seconds of the whole job on one machine with GPUs that never wait for tokens.
        own_s: Seconds in which its own cores tokenize the corpus; infinite if they cannot.
        helper_s: Seconds in which one helper does.
    """

    instance_type: str
    usd_per_hour: float
    gpu_s: float
    own_s: float
    helper_s: float


@dataclass(frozen=True, kw_only=True)
class MachineOffer:
    """A type that could be rented, and what the job asks of it.

    Attributes:
        instance_type: Name of the type.
        usd_per_hour: Price of the head, which is never a spot machine.
        worker_usd_per_hour: Price of any other machine.
        num_actors: Actors on one machine.
        job_s: Seconds of the whole job on one machine, all actors busy, without helpers.
        shard_s: Seconds of a shard on one actor, that it waits for included.
        error_factor: All seconds are taken to be right up to this factor; 1 where they were
            measured once.
        is_measured: Whether they were measured on this very type.
        sample_error: Half of the 95% interval of the work, as a share of it.
        uses_gpus: Whether its actors are on GPUs.
        helper: What could tokenize for its GPUs; None where they need no help.
    """

    instance_type: str
    usd_per_hour: float
    worker_usd_per_hour: float
    num_actors: int
    job_s: float
    shard_s: float
    error_factor: float = 1.0
    is_measured: bool = False
    sample_error: float = 0.0
    uses_gpus: bool = False
    helper: HelperOffer | None = None

    @property
    def num_shards(self) -> int:
        """Number of shards of the job."""
        return max(1, round(self.job_s * self.num_actors / self.shard_s))
