"""What a run did, as a value, and as report.json: the one place that knows its keys.

    summary -> [run_report] -> report.json -> [run_report] -> table, page, fitted machine profile

The attributes have the names of the file's keys, so readers of the file can look them up here.
Wall seconds count from the start of the command, Ray's start included, because the machine is paid
for that time too. Ratios are 0 to 1. This module knows neither how a run is done nor how its report
is shown.
"""

from dataclasses import dataclass
from typing import Any

from fastformers.cluster.json_values import from_plain, to_plain
from fastformers.cluster.records.audit import AuditReport
from fastformers.cluster.records.quality import Quality
from fastformers.cluster.records.quotes import EarlyQuote, Quote
from fastformers.cluster.records.sessions import Session
from fastformers.cluster.report.bill import Bill
from fastformers.cluster.report.over_time import (
    AgreementReport,
    CascadeReport,
    KindReport,
    NodeReport,
    TimelineEntry,
    TokensOverTime,
)
from fastformers.errors import InputError

REPORT_FILE = "report.json"
FORMAT_VERSION = 6  # raised whenever a key comes, goes or changes its meaning
# What reports of an older format lack, by its version; they are read as if it was not measured.
_LACKING: dict[Any, dict[str, Any]] = {5: {"corpus": "", "history": [], "early_quote": None}}

# What `fastformers score` promises to print last; report.json holds more.
SUMMARY_KEYS = (
    "rows",
    "unique_rows",
    "tokens",
    "rows_per_second",
    "tokens_per_second",
    "padding_efficiency",
    "wall_s",
    "usd_per_hour",
    "usd_per_million",
    "usd_total",
    "price",
    "dead_letters",
    "resumed_shards",
    "shards",
    "retries",
    "num_actors",
    "phase_s",
    "peak_rss_bytes",
    "output",
)

# What `fastformers prepare` promises to print last: it scores nothing, so it has fewer to tell.
PREPARATION_KEYS = (
    "rows",
    "unique_rows",
    "tokens",
    "shards",
    "wall_s",
    "usd_total",
    "phase_s",
    "output",
)


@dataclass(frozen=True, kw_only=True)
class PhaseSeconds:
    """Seconds of all actors by phase; `idle` is what remains of their time after the start."""

    read: float
    tokenize: float
    infer: float
    audit: float
    write: float
    idle: float


@dataclass(frozen=True, kw_only=True)
class ActorReport:
    """What one actor scored.

    Attributes:
        shards, rows: How many.
        rows_per_second, tokens_per_second: Rates over its busy time.
        busy_s: Seconds that it scored.
        peak_rss_bytes: Most resident memory that it held.
    """

    shards: int
    rows: int
    rows_per_second: float
    tokens_per_second: float
    busy_s: float
    peak_rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class TypeCost:
    """What this run would have cost on one machine of another instance type: an estimate.

    Attributes:
        instance_type: The cloud's name of it.
        usd: Price of the whole run.
        usd_low, usd_high: The price if the other machine is faster or slower than estimated.
        wall_s: Seconds from start to end on one machine with all cores busy.
        basis: How its speed is known; see `instances.Basis`.
        scaled_from: What its speed was scaled from, for people.
        region: Region of the price, by the cloud's own name.
        as_of: ISO date of the price.
    """

    instance_type: str
    usd: float
    usd_low: float
    usd_high: float
    wall_s: float
    basis: str
    scaled_from: str
    region: str
    as_of: str


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Electricity that one machine drew.

    Attributes:
        kwh: Total of CPU, GPUs and memory, with what other programs on the machine drew.
        cpu_kwh, gpu_kwh, memory_kwh: Parts of the total.
        co2_kg: CO2 equivalents, by the average electricity mix of `country`.
        country: ISO code of three letters.
        cpu_basis, gpu_basis: `read` from the hardware's counters, `modelled`, or `none`; memory is
            always modeled.
        covered_s: Seconds that were watched: the tracker starts beside the run, not before it.
        source: Program and version.
    """

    kwh: float
    cpu_kwh: float
    gpu_kwh: float
    memory_kwh: float
    co2_kg: float
    country: str
    cpu_basis: str
    gpu_basis: str
    covered_s: float
    source: str


@dataclass(frozen=True, kw_only=True)
class BundleUsed:
    """The bundle that scored, and how it was run.

    Attributes:
        path: Path or URI of the bundle.
        precision: Precision of its matrix products.
        digest: Hash of its files.
        labels: Names of its classes, in the order of `probabilities` and `logits`.
        max_batch_tokens: Token budget of a batch.
        profile_cpu: Processor that its cost profile was measured on.
        engine: What ran the graph.
    """

    path: str
    precision: str
    digest: str
    labels: tuple[str, ...]
    max_batch_tokens: int
    profile_cpu: str
    engine: str


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Everything that was measured of a run, in all of its sessions.

    Sums, rates and the bill are of all sessions. Machines, actors and what happened when are of the
    last one: `setup_s`, `num_actors`, `num_machines`, `nodes`, `cores`, `driver_cpu`, `actors`,
    `energy`, `attempts`, `timeline` and `tokens_over_time`.

    Attributes:
        rows, unique_rows, tokens, unique_tokens: Counts of the corpus; unique ones are scored.
        rows_per_second, tokens_per_second: What sessions scored over their wall time.
        padding_efficiency: Tokens of text over tokens computed; None where nothing was computed.
        wall_s: Seconds from start to end of each session, added up.
        setup_s: Seconds of the last one until the first job could be handed out.
        usd_per_hour: Price of one machine; where they differ, the mean over the time of all.
        price: Where the price, or that of each type, comes from, for people.
        price_is_estimate: Whether the price of any machine is an estimate, because neither the user
            nor its cloud named a type of known price.
        price_mismatches: What machines are seen to have that the types they are priced as have not,
            for people.
        usd_total: Price of each machine for the time from when it joined until it left.
        usd_per_million: Price of a million of the rows that sessions scored; None without any.
        dead_letters: Rows without a prediction.
        dead_letter_reasons: How many of them by kind of reason, the commonest first; a few kinds.
        quality: Predictions against the labels of the rows; None where no labels were given.
        quality_unknown: Why `quality` is None although labels were given.
        audit: How far a second bundle agrees on a share of the rows; None where none was asked for.
        resumed_shards, resumed_rows: How many of them earlier sessions had scored.
        sessions: Each start of the command, in their order; the last one wrote this report.
        unrecorded_rows: Rows that were scored in the last seconds of sessions that ended early, and
            are in no record of a session.
        shards: Number of shards that the corpus was cut into.
        retries: Leases that were lost with their actor.
        skipped_files: Unreadable files that were left out, with the reason.
        left_out: What else of the corpus's place is not part of it, for people.
        unfit_values: Number of values of kept columns that do not fit the column's type and are
            null, by column; under "*" those of columns that the planned files do not have.
        num_actors, num_machines: How many of them worked, those that left included.
        kinds: What actors on each device did, in each precision.
        agreement: How much two precisions agree; None where one scored, or nothing was compared.
        cascade: Shares of the second graph; None where one graph scored all texts.
        nodes: Machines that were paid for, in the order in which they joined; one with GPUs may be
            two, of which the one on its GPUs costs.
        cores: Which actors ran on which cores, for people.
        driver_cpu: Processor of the driver's node.
        phase_s: Seconds of all actors by phase.
        predicted_s: Core-seconds that the bundle's cost profile predicted of running the model.
        peak_rss_bytes: Most resident memory that an actor held.
        actors: What each actor scored, by its name.
        started_at: ISO time of the start, in UTC.
        bill: Where the money went.
        history: What the run said of its bill while it went, in all sessions; at most one quote for
            each of some shares of the work. Empty where it ended before one could be made.
        early_quote: What `fastformers cost` said before; None where it was not given.
        other_types: What this run would have cost elsewhere, cheapest first.
        other_types_unknown: Why `other_types` is empty; None where it is not.
        energy: Electricity that the driver's node drew; None where it was not measured.
        lengths: [texts, tokens, computed tokens] by upper edge, see `receipts.count_lengths`.
        attempts: How many jobs actors were given.
        timeline: The attempts, in the order in which they ended; where there are very
            many, a sample with all of those of some actors and of those that were lost.
        tokens_over_time: Throughput of all actors over the run.
        bundle: The bundle that scored.
        corpus: What was scored or prepared, as the user wrote it; "" where that was not kept.
        output: Where the predictions are, or the shards if they were only prepared.
    """

    rows: int
    unique_rows: int
    tokens: int
    unique_tokens: int
    rows_per_second: float
    tokens_per_second: float
    padding_efficiency: float | None
    wall_s: float
    setup_s: float
    usd_per_hour: float
    price: str
    price_is_estimate: bool
    price_mismatches: tuple[str, ...]
    usd_total: float
    usd_per_million: float | None
    dead_letters: int
    dead_letter_reasons: dict[str, int]
    quality: Quality | None
    quality_unknown: str | None
    audit: AuditReport | None
    resumed_shards: int
    resumed_rows: int
    sessions: tuple[Session, ...]
    unrecorded_rows: int
    shards: int
    retries: int
    skipped_files: dict[str, str]
    left_out: tuple[str, ...]
    unfit_values: dict[str, int]
    num_actors: int
    num_machines: int
    kinds: tuple[KindReport, ...]
    agreement: AgreementReport | None
    cascade: CascadeReport | None
    nodes: tuple[NodeReport, ...]
    cores: tuple[str, ...]
    driver_cpu: str
    phase_s: PhaseSeconds
    predicted_s: float
    peak_rss_bytes: int
    actors: dict[str, ActorReport]
    started_at: str
    bill: Bill
    history: tuple[Quote, ...]
    early_quote: EarlyQuote | None
    other_types: tuple[TypeCost, ...]
    other_types_unknown: str | None
    energy: Energy | None
    lengths: dict[str, tuple[int, int, int]]
    attempts: int
    timeline: tuple[TimelineEntry, ...]
    tokens_over_time: TokensOverTime
    bundle: BundleUsed
    corpus: str
    output: str

    @property
    def uses_gpus(self) -> bool:
        """Whether actors on GPUs scored."""
        return any(kind.device == "cuda" for kind in self.kinds)

    def to_json(self) -> dict[str, Any]:
        """Content of report.json, as plain values."""
        return {"format_version": FORMAT_VERSION, **to_plain(self)}

    @classmethod
    def from_json(cls, content: object, *, path: str, remedy: str) -> "RunReport":
        """The report from which `to_json` made `content`.

        Args:
            content: What was read from the file; None if it is not there.
            path: Where the file is, for messages.
            remedy: What the user can do if it cannot be used, for messages.

        Raises:
            InputError: It is no report, one of a format that is not read any more, or damaged.
        """
        if not isinstance(content, dict):
            raise InputError(f"{path}: is not a report of ours; {remedy}")
        version = content.get("format_version", 0)
        if isinstance(version, int) and version in _LACKING:
            content, version = {**content, **_LACKING[version]}, FORMAT_VERSION
        if version != FORMAT_VERSION:
            age = "a newer" if isinstance(version, int) and version > FORMAT_VERSION else "an older"
            raise InputError(
                f"{path}: was written by {age} version (report format {version}, this one reads "
                f"{FORMAT_VERSION}); {remedy}"
            )
        values = {key: value for key, value in content.items() if key != "format_version"}
        try:
            report: RunReport = from_plain(cls, values)
        except ValueError as error:
            raise InputError(f"{path}: damaged: {error}; {remedy}") from error
        return report

    def summarize(self) -> dict[str, Any]:
        """What the last line of a run that scored shows: `SUMMARY_KEYS` and a few more."""
        found = self.quality
        quality = None
        if found is not None:
            quality = {"metric": found.metric, "value": found.value, "rows": found.rows}
        return {
            **self._pick(SUMMARY_KEYS),
            "num_sessions": len(self.sessions),
            "quality": quality,
            "audit": to_plain(self.audit),
            "early_quote": to_plain(self.early_quote),
            "first_quote": to_plain(self.history[0] if self.history else None),
            "last_quote": to_plain(self.history[-1] if self.history else None),
            **({"cascade": to_plain(self.cascade)} if self.cascade is not None else {}),
        }

    def summarize_preparation(self) -> dict[str, Any]:
        """What the last line of a run that only prepared shows: `PREPARATION_KEYS`."""
        return self._pick(PREPARATION_KEYS)

    def _pick(self, keys: tuple[str, ...]) -> dict[str, Any]:
        return {key: to_plain(getattr(self, key)) for key in keys}
