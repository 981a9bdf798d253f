"""What a scaling test found, as a value, and as scale.json: the one place that knows its keys.

    measured points, laws, simulation, driver -> [scale_report] -> scale.json -> table, page

The attributes have the names of the file's keys. Ratios are 0 to 1. This module knows neither how
anything is measured nor how it is shown.
"""

from dataclasses import dataclass
from typing import Any

from fastformers.cluster.json_values import from_plain, to_plain
from fastformers.cluster.scaling.laws import Estimate
from fastformers.errors import InputError

SCALE_FILE = "scale.json"
FORMAT_VERSION = 2  # raised whenever a key comes, goes or changes its meaning


@dataclass(frozen=True, kw_only=True)
class ScalePoint:
    """Throughput of a number of actors; medians over the turns where it was measured.

    Attributes:
        kind: `strong`: the same shards whatever the number of actors; `weak`: as many shards for
            each actor.
        actors, nodes: How many worked, and on how many nodes.
        rows_per_second: Rows of the corpus's average text a second, from when all actors were up
            until the last shard was done.
        rows_per_second_low, rows_per_second_high: The slowest and the fastest turn.
        job_rows_per_second: Rows a second over the whole job, the start of its actors included;
            Ray was up before.
        speedup: `rows_per_second` over that of one actor.
        efficiency: `speedup` over `actors`.
        usd_per_million: Price of a million rows at `rows_per_second`, all nodes paid in full.
    """

    kind: str
    actors: int
    nodes: int
    rows_per_second: float
    rows_per_second_low: float
    rows_per_second_high: float
    job_rows_per_second: float
    speedup: float
    efficiency: float
    usd_per_million: float


@dataclass(frozen=True, kw_only=True)
class UniversalLaw:
    """The universal scalability law, fitted; see `laws.ScalingLaw`.

    Attributes:
        sigma: Contention.
        kappa: Coordination.
        knee: Number of actors of the highest throughput; None where more always bring more.
    """

    sigma: Estimate
    kappa: Estimate
    knee: float | None


@dataclass(frozen=True, kw_only=True)
class CheckedPoint:
    """A measured point beside its simulation.

    Attributes:
        kind, actors, nodes: The point; of kind `idle` is a load test of idle Ray actors.
        measured_s: Seconds from the job's start until its last shard was done, the median.
        simulated_s: The same, simulated from the shards and starts of each turn, the median.
        error: Simulated over measured, less 1, of each turn, the median.
    """

    kind: str
    actors: int
    nodes: int
    measured_s: float
    simulated_s: float
    error: float


@dataclass(frozen=True, kw_only=True)
class DriverLoad:
    """What the driver and the supervisors carry when nothing is scored.

    Attributes:
        slots, nodes: Slots, and the supervisors that they are behind.
        are_actors: Whether the slots are Ray actors; otherwise they are in this process.
        shard_s: Seconds that a shard is said to take.
        shards, calls: Shards that went through, and calls to nodes that carried them.
        shards_per_second: Shards a second that all of them did together.
        us_per_shard: CPU microseconds of the driver for each shard.
        ms_per_lease: CPU milliseconds of the driver for each call to a node, with its shards.
        ms_per_empty_lease: CPU milliseconds of the driver for a call that carries nothing; None in
            this process, where no message travels.
        supervisor_us_per_shard: Microseconds of a supervisor for each shard.
    """

    slots: int
    nodes: int
    are_actors: bool
    shard_s: float
    shards: int
    calls: int
    shards_per_second: float
    us_per_shard: float
    ms_per_lease: float
    ms_per_empty_lease: float | None
    supervisor_us_per_shard: float


@dataclass(frozen=True, kw_only=True)
class SimulationInputs:
    """What the simulation was given, for people.

    Attributes:
        seconds_over_predicted: Measured seconds of a shard over predicted ones: the 10th, 50th and
            90th percentile.
        actor_startup_s: Seconds until an actor works: the median.
        shard_seconds: Predicted seconds of a simulated shard, as the planner sizes it.
        shards: Shards of the largest simulated job.
        interruptions_per_hour: Interruptions of a node, assumed.
        failures_per_hour: Deaths of an actor in an hour, measured.
        assumptions: Further lines.
    """

    seconds_over_predicted: tuple[float, float, float]
    actor_startup_s: float
    shard_seconds: float
    shards: int
    interruptions_per_hour: float
    failures_per_hour: float
    assumptions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ScaleReport:
    """Everything that a scaling test found.

    Attributes:
        corpus, bundle, bundle_digest, engine: What was scored, by what.
        rows, shards: Rows and shards of the corpus.
        cpu_model: Processor of the driver's node.
        actors_per_node, cores_per_actor: Actors of a full node, and physical cores of each.
        repeats: Turns, in which all points were measured.
        measured_at: ISO time of the start, in UTC.
        usd_per_hour, price: Price of one node, and where it comes from.
        points: Measured points, by kind and number of actors.
        serial_share: Share of the work that cannot be divided, by Amdahl's law; None where only
            one number of actors was measured.
        universal_law: The universal scalability law; None with fewer than three numbers of actors.
        cheapest: The measured point with the least `usd_per_million`, the smaller of equal ones.
        checked: Measured points beside their simulation.
        is_believed: Whether no simulated time is more than 5% off.
        simulated: Points of the simulation; empty where none was asked for.
        limits: What keeps the largest simulated point below 90% efficiency; None if it is not.
        driver: Load tests of the driver.
        inputs: What the simulation was given.
    """

    corpus: str
    bundle: str
    bundle_digest: str
    engine: str
    rows: int
    shards: int
    cpu_model: str
    actors_per_node: int
    cores_per_actor: int
    repeats: int
    measured_at: str
    usd_per_hour: float
    price: str
    points: tuple[ScalePoint, ...]
    serial_share: Estimate | None
    universal_law: UniversalLaw | None
    cheapest: ScalePoint
    checked: tuple[CheckedPoint, ...]
    is_believed: bool
    simulated: tuple[ScalePoint, ...]
    limits: str | None
    driver: tuple[DriverLoad, ...]
    inputs: SimulationInputs

    def to_json(self) -> dict[str, Any]:
        """Content of scale.json, and the last line of the command, as plain values."""
        return {"format_version": FORMAT_VERSION, **to_plain(self)}

    @classmethod
    def from_json(cls, content: object, *, path: str) -> "ScaleReport":
        """The report from which `to_json` made `content`.

        Args:
            content: What was read from the file; None if it is not there.
            path: Where the file is, for messages.

        Raises:
            InputError: It is no report, one of another format version, or damaged.
        """
        remedy = "run fastformers scale again"
        if not isinstance(content, dict):
            raise InputError(f"{path}: is not a scaling test of ours; {remedy}")
        version = content.get("format_version", 0)
        if version != FORMAT_VERSION:
            raise InputError(
                f"{path}: was written by another version (format {version}, this one reads "
                f"{FORMAT_VERSION}); {remedy}"
            )
        values = {key: value for key, value in content.items() if key != "format_version"}
        try:
            report: ScaleReport = from_plain(cls, values)
        except ValueError as error:
            raise InputError(f"{path}: damaged: {error}; {remedy}") from error
        return report
