"""Numbers of a run for Ray's metrics agent, from which Prometheus and Grafana read them.

    reports of a node, progress -> [metrics] -> Ray's agent of each node -> Prometheus -> dashboard

Each process has its own `RunMetrics`: a supervisor with the name of its node, the driver with
"driver". What they are told is added up here and handed to Ray at most once a second. Where Ray has
no agent, because `ray[default]` is not installed, that leads nowhere and costs the same. This
module decides nothing and knows no prices; `grafana_dashboard.json` beside it draws these numbers.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from fastformers.cluster.execution.worker import WorkerSpec
from fastformers.cluster.nodes.ray_pool import STORE
from fastformers.cluster.scheduling.nodes import NodeReport
from fastformers.cluster.scheduling.progress import Progress
from fastformers.cluster.scheduling.work import Finished, Lost
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Receipt

_PERIOD_S = 1.0

# Prometheus has them under these names with `ray_` before them and, for counters, `_total` behind.
COUNTERS = {
    "fastformers_rows": "Rows that were scored or are dead letters",
    "fastformers_tokens": "Tokens of the rows, without padding and with repeated texts",
    "fastformers_shards": "Shards that are on disk",
    "fastformers_dead_letters": "Rows that have no prediction",
    "fastformers_phase_seconds": "Seconds of actors by phase",
    "fastformers_retries": "Jobs of a node that were lost with their actor",
    "fastformers_storage_outages": "Times that the storage began to give no answer",
}
GAUGES = {
    "fastformers_actors": "Actors by state",
    "fastformers_jobs_in_hand": "Jobs that a node has, begun or not",
    "fastformers_storage_outage_seconds": "Seconds without an answer of the storage",
    "fastformers_nodes": "Nodes that work for the run",
    "fastformers_usd": "USD that all machines have cost so far",
    "fastformers_shards_known": "Shards that the run knows",
    "fastformers_shards_done": "Shards that the run has finished",
    "fastformers_slices_left": "Slices of the corpus that are still to be cut into shards",
    "fastformers_core_seconds_left": "Core-seconds that the rest is predicted to take",
    "fastformers_lost_leases": "Leases that the run has lost with their actor or node",
}
HISTOGRAMS = {"fastformers_shard_seconds": "Seconds from when a shard's turn came until it is done"}
_SHARD_SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0]
# The label that a metric has beside `run` and `node`.
LABELS = {"fastformers_phase_seconds": "phase", "fastformers_actors": "state"}

# A metric and the value of its own label, "" where it has none.
_Series = tuple[str, str]


def run_of(spec: WorkerSpec) -> str:
    """Name of a run in its metrics: the directory that it writes."""
    if spec.predictions is None:
        return spec.shards.path
    return spec.predictions.path.rpartition("/")[0]


@cache
def driver_metrics(run: str) -> "RunMetrics":
    """The metrics of the driver of a run, in a process that is connected to Ray."""
    return RunMetrics(run, node="driver")


class RunMetrics:
    """What one process of a run tells Ray's agent."""

    def __init__(self, run: str, *, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Register the metrics with Ray, which this process has to be connected to.

        Args:
            run: Name of the run; see `run_of`.
            node: Name of the supervisor's node, or "driver".
            clock: Seconds since any moment.
        """
        self._tags = {"run": run, "node": node}
        self._clock = clock
        self._added: dict[_Series, float] = defaultdict(float)
        self._values: dict[_Series, float] = {}
        self._shard_seconds: list[float] = []
        self._silent_since: float | None = None
        self._flushed_at = clock()
        self._metrics: dict[str, Any] = {
            **{name: Counter(name, text, _tag_keys(name)) for name, text in COUNTERS.items()},
            **{name: Gauge(name, text, _tag_keys(name)) for name, text in GAUGES.items()},
            **{
                name: Histogram(name, text, _SHARD_SECONDS, _tag_keys(name))
                for name, text in HISTOGRAMS.items()
            },
        }

    def add_report(self, report: NodeReport, *, num_in_hand: int) -> None:
        """Add what a node tells the driver.

        Args:
            report: The report.
            num_in_hand: Tasks that the node has after it.
        """
        for ended in report.ended:
            outcome = ended.outcome
            if isinstance(outcome, Lost):
                self._added["fastformers_retries", ""] += 1
            elif isinstance(outcome, Finished) and isinstance(outcome.result, Receipt):
                self._add_receipt(outcome.result)
                self._add_phases(outcome.result.phase_s)
            elif isinstance(outcome, Finished) and isinstance(outcome.result, SliceReceipt):
                self._add_phases(outcome.result.phase_s)
        for name, state in self._values:
            if name == "fastformers_actors":
                self._values[name, state] = 0
        for state, number in report.doing.items():
            self._values["fastformers_actors", state] = number
        self._values["fastformers_jobs_in_hand", ""] = num_in_hand
        self._note_storage(is_silent=report.doing.get(STORE, 0) > 0)
        self.flush()

    def set_progress(self, progress: Progress, *, usd: float) -> None:
        """Set where the run stands.

        Args:
            progress: Its state.
            usd: What all machines have cost so far.
        """
        for name, value in (
            ("nodes", progress.num_nodes),
            ("usd", usd),
            ("shards_known", progress.num_known),
            ("shards_done", progress.num_done),
            ("slices_left", progress.num_slices_left),
            ("core_seconds_left", progress.predicted_left_s),
            ("lost_leases", progress.num_retries),
        ):
            self._values[f"fastformers_{name}", ""] = value
        self.flush()

    def flush(self, *, force: bool = False) -> None:
        """Hand everything to Ray, unless that was done within the last second.

        Args:
            force: Whether to do it in any case, because the process will end.
        """
        now = self._clock()
        if not force and now - self._flushed_at < _PERIOD_S:
            return
        self._flushed_at = now
        added, self._added = self._added, defaultdict(float)
        observed, self._shard_seconds = self._shard_seconds, []
        for series, value in added.items():
            if value > 0:  # Ray refuses to add nothing
                self._metrics[series[0]].inc(value, self._tags_of(series))
        for series, value in self._values.items():
            self._metrics[series[0]].set(value, self._tags_of(series))
        for seconds in observed:
            self._metrics["fastformers_shard_seconds"].observe(seconds, self._tags)

    def _add_receipt(self, receipt: Receipt) -> None:
        added = self._added
        added["fastformers_shards", ""] += 1
        added["fastformers_rows", ""] += receipt.num_rows
        added["fastformers_tokens", ""] += receipt.num_tokens
        added["fastformers_dead_letters", ""] += receipt.num_errors
        self._shard_seconds.append(receipt.finished_at - receipt.started_at)

    def _add_phases(self, phase_s: Mapping[str, float]) -> None:
        for phase, seconds in phase_s.items():
            self._added["fastformers_phase_seconds", phase] += seconds

    def _note_storage(self, *, is_silent: bool) -> None:
        now = self._clock()
        if not is_silent:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
            self._added["fastformers_storage_outages", ""] += 1
        silent_s = 0.0 if self._silent_since is None else now - self._silent_since
        self._values["fastformers_storage_outage_seconds", ""] = silent_s

    def _tags_of(self, series: _Series) -> dict[str, str]:
        name, value = series
        return {**self._tags, LABELS[name]: value} if name in LABELS else self._tags


def _tag_keys(name: str) -> tuple[str, ...]:
    return ("run", "node", LABELS[name]) if name in LABELS else ("run", "node")
