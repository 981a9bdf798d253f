"""What a report says of when things happened: nodes, attempts, and tokens over time.

    summary -> [over_time] -> run_report, downsample

Parts of a `RunReport`, apart because they are what a page plots over time. Seconds count from the
run's start. This module knows neither how a run is done nor how its report is shown.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TimelineEntry:
    """An attempt of an actor at a job, and what came out of it.

    Attributes:
        job: `prepare`, `score` or `search`; see `receipts.Attempt`.
        name: Name of the slice or the shard.
        actor: Name of the actor.
        attempt: Number of the attempt, from 1.
        lost: Whether the actor died over it.
        start_s, end_s: Seconds since the run's start.
        busy_s: Seconds that the actor measured in its phases.
        infer_s: Seconds of these in which the model ran.
        rows, tokens: How many were scored; 0 for every other job.
        predicted_s: Seconds expected from the bundle's cost profile.
        rss_bytes: Resident memory of the actor at the end.
    """

    job: str
    name: str
    actor: str
    attempt: int
    lost: bool
    start_s: float
    end_s: float
    busy_s: float
    infer_s: float
    rows: int
    tokens: int
    predicted_s: float
    rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class TokensOverTime:
    """Tokens that were scored, each shard's spread evenly over the time that it took.

    Attributes:
        bin_s: Seconds of a bin; the first one begins at the run's start.
        groups: Tokens in each bin, by actor, or by groups of them where they are many.
    """

    bin_s: float
    groups: dict[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """A node that was paid for.

    Attributes:
        name: Host name.
        instance_type: Name that its cloud gives its type; None where it is not known.
        joined_s, left_s: From when to when it was paid for, in seconds since the run's start.
        actors, shards, rows: How many actors it had, and what they scored.
        rows_per_second: Rate over the time that it was paid for.
        usd_per_hour, price: Its price, and where that comes from, for people.
        usd: What it cost.
        left_because: Why it left before the end; None if it stayed.
    """

    name: str
    instance_type: str | None
    joined_s: float
    left_s: float
    actors: int
    shards: int
    rows: int
    rows_per_second: float
    usd_per_hour: float
    price: str
    usd: float
    left_because: str | None
