"""What a report says of those who worked, and when: kinds of actors, nodes, attempts, tokens.

    summary -> [over_time] -> run_report, downsample

Parts of a `RunReport`, apart because most are what a page plots over time. Seconds count from the
run's start. This module knows neither how a run is done nor how its report is shown.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TimelineEntry:
    """An attempt of an actor at a job, and what came out of it.

    Attributes:
        job: `prepare`, `score`, `search` or `compare`; see `receipts.Attempt`.
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
class KindReport:
    """What actors on one device did, in one precision.

    Attributes:
        device: What computed for them: `cpu` or `cuda`.
        precision, engine, max_batch_tokens: How they scored; None where they only prepared.
        actors, machines: How many there were.
        shards, rows, tokens: What they scored, in earlier sessions, too.
        share_of_tokens: Their share of all tokens scored, 0-1.
        usd: What their nodes cost in the last session; a machine with GPUs costs what its GPUs do.
        usd_per_million: That over a million of the rows that they scored in it; None without.
        computing: Share of the time from its first batch to its last in which an actor ran the
            model; None where none was run.
        waiting: Share of that time in which it waited for its next shard, or for one to be written.
        gpu_busy: Share of that time in which a kernel ran on its GPU, as NVML counts; None where
            that is not known.
        bound_by: What held it up: the `card`, or the `host` that feeds it; None on cores.
    """

    device: str
    precision: str | None
    engine: str | None
    max_batch_tokens: int | None
    actors: int
    machines: int
    shards: int
    rows: int
    tokens: int
    share_of_tokens: float
    usd: float
    usd_per_million: float | None
    computing: float | None
    waiting: float | None
    gpu_busy: float | None
    bound_by: str | None


@dataclass(frozen=True, kw_only=True)
class AgreementReport:
    """How much two precisions agree that scored this corpus, on texts that were scored in both.

    Attributes:
        precisions: The two.
        texts: Texts that were compared: up to 256 of the 1st, 2nd, 4th, 8th ... shard that GPUs
            scored, of all lengths.
        equal_labels: Share of them with the same label, 0-1.
        largest_difference: The largest difference of a probability, a score or a value.
    """

    precisions: tuple[str, ...]
    texts: int
    equal_labels: float
    largest_difference: float


@dataclass(frozen=True, kw_only=True)
class CascadeReport:
    """Shares of the second graph of a cascade; the first scored all texts.

    Attributes:
        threshold: Texts with a smaller margin went on.
        texts, second_texts: Different texts that were scored, and those of them that went on.
        share: Share of texts that went on.
        expected_share: What it was expected to be for texts of these lengths.
        share_of_compute: Share of the seconds of running the model that the second graph took.
        precisions: Precisions of the two graphs.
    """

    threshold: float
    texts: int
    second_texts: int
    share: float
    expected_share: float
    share_of_compute: float
    precisions: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """A node that was paid for.

    Attributes:
        name: Host name, with `:cuda` for the part of a machine that its GPUs are.
        device: What computed for its actors.
        instance_type: Name that its cloud gives its type; None where it is not known.
        joined_s, left_s: From when to when it was paid for, in seconds since the run's start.
        actors, shards, rows: How many actors it had, and what they scored.
        rows_per_second: Rate over the time that it was paid for.
        usd_per_hour, price: Its price, and where that comes from, for people.
        usd: What it cost.
        left_because: Why it left before the end; None if it stayed.
    """

    name: str
    device: str
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
