"""Numbers of a run for Ray's metrics agent, from which Prometheus and Grafana read them.

    receipts, attempts, progress -> [metrics] -> Ray's agent of each node -> Prometheus -> dashboard

Each process has its own `RunMetrics`: a supervisor with the name of its node, the driver with
"driver". What they are told is added up here and handed to Ray at most once a second. Where Ray has
no agent, because `ray[default]` is not installed, that leads nowhere and costs the same. This
module decides nothing and knows no prices; `grafana_dashboard.json` beside it draws these numbers.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from cluster.scheduling.progress import Progress
from cluster.shards.receipts import Attempt, Receipt

_PERIOD_S = 1.0

# Prometheus has them under these names with `ray_` before them and, for counters, `_total` behind.
COUNTERS = {
    "fastformers_rows": "Rows that were scored or are dead letters",
    "fastformers_tokens": "Tokens of the rows, without padding and with repeated texts",
    "fastformers_shards": "Shards that are on disk",
    "fastformers_dead_letters": "Rows that have no prediction",
    "fastformers_phase_seconds": "Seconds of actors by phase",
    "fastformers_retries": "Jobs that were lost with their actor",
    "fastformers_storage_outages": "Times that the storage began to give no answer",
}
GAUGES = {
    "fastformers_actors": "Actors by state",
    "fastformers_queue": "Jobs that a node has and no actor has begun",
    "fastformers_storage_outage_seconds": "Seconds since the storage answered last, 0 if it does",
    "fastformers_nodes": "Nodes that work for the run",
    "fastformers_usd": "USD that all machines have cost so far",
    "fastformers_shards_known": "Shards that the run knows",
    "fastformers_shards_done": "Shards that the run has finished",
    "fastformers_slices_left": "Slices of the corpus that are still to be cut into shards",
    "fastformers_core_seconds_left": "Core-seconds that the rest is predicted to take",
}
HISTOGRAMS = {"fastformers_shard_seconds": "Seconds from when a shard's turn came until it is done"}
_SHARD_SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0]
# The label that a metric has beside `run` and `node`.
LABELS = {"fastformers_phase_seconds": "phase", "fastformers_actors": "state"}

# A metric and the value of its own label, "" where it has none.
_Series = tuple[str, str]


class RunMetrics:
    """What one process of a run tells Ray's agent; may be called from several threads."""

    def __init__(self, run: str, *, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Register the metrics with Ray, which this process has to be connected to.

        Args:
            run: Identifier of the run.
            node: Name of the supervisor's node, or "driver".
            clock: Seconds since any moment.
        """
        self._tags = {"run": run, "node": node}
        self._clock = clock
        self._lock = threading.Lock()
        self._added: dict[_Series, float] = defaultdict(float)
        self._values: dict[_Series, float] = {}
        self._shard_seconds: list[float] = []
        self._flushed_at = clock()
        self._metrics: dict[str, Any] = {
            **{name: Counter(name, text, _tag_keys(name)) for name, text in COUNTERS.items()},
            **{name: Gauge(name, text, _tag_keys(name)) for name, text in GAUGES.items()},
            **{
                name: Histogram(name, text, _SHARD_SECONDS, _tag_keys(name))
                for name, text in HISTOGRAMS.items()
            },
        }

    def add_receipt(self, receipt: Receipt) -> None:
        """A shard is on disk; one call for each, in the process that knows its node."""
        with self._lock:
            added = self._added
            added["fastformers_shards", ""] += 1
            added["fastformers_rows", ""] += receipt.num_rows
            added["fastformers_tokens", ""] += receipt.num_tokens
            added["fastformers_dead_letters", ""] += receipt.num_errors
            for phase, seconds in receipt.phase_s.items():
                added["fastformers_phase_seconds", phase] += seconds
            self._shard_seconds.append(receipt.finished_at - receipt.started_at)

    def add_attempt(self, attempt: Attempt) -> None:
        """A job has ended, well or lost."""
        if attempt.is_lost:
            with self._lock:
                self._added["fastformers_retries", ""] += 1

    def set_actors(self, num_by_state: Mapping[str, int]) -> None:
        """How many actors of the node are in each state; a state that is left out has none."""
        with self._lock:
            for name, state in self._values:
                if name == "fastformers_actors":
                    self._values[name, state] = 0
            for state, number in num_by_state.items():
                self._values["fastformers_actors", state] = number

    def set_queue(self, num_jobs: int) -> None:
        """How many jobs the node has that no actor has begun."""
        self._set("fastformers_queue", num_jobs)

    def set_storage_outage(self, seconds: float) -> None:
        """For how long the storage has given no answer; 0 if it answers."""
        name = "fastformers_storage_outage_seconds"
        with self._lock:
            if seconds > 0 and not self._values.get((name, "")):
                self._added["fastformers_storage_outages", ""] += 1
            self._values[name, ""] = seconds

    def set_num_nodes(self, num_nodes: int) -> None:
        """How many nodes work for the run."""
        self._set("fastformers_nodes", num_nodes)

    def set_usd(self, usd: float) -> None:
        """What all machines have cost so far."""
        self._set("fastformers_usd", usd)

    def set_progress(self, progress: Progress) -> None:
        """Where the run stands; the receipts in it are not added."""
        self._set("fastformers_shards_known", progress.num_known)
        self._set("fastformers_shards_done", progress.num_done)
        self._set("fastformers_slices_left", progress.num_slices_left)
        self._set("fastformers_core_seconds_left", progress.predicted_left_s)

    def flush(self, *, force: bool = False) -> None:
        """Hand everything to Ray, unless that was done within the last second.

        Args:
            force: Whether to do it in any case, because the process will end.
        """
        now = self._clock()
        with self._lock:
            if not force and now - self._flushed_at < _PERIOD_S:
                return
            self._flushed_at = now
            added, self._added = self._added, defaultdict(float)
            observed, self._shard_seconds = self._shard_seconds, []
            values = dict(self._values)
        for series, value in added.items():
            if value > 0:  # Ray refuses to add nothing
                self._metrics[series[0]].inc(value, self._tags_of(series))
        for series, value in values.items():
            self._metrics[series[0]].set(value, self._tags_of(series))
        for seconds in observed:
            self._metrics["fastformers_shard_seconds"].observe(seconds, self._tags)

    def _set(self, name: str, value: float) -> None:
        with self._lock:
            self._values[name, ""] = value

    def _tags_of(self, series: _Series) -> dict[str, str]:
        name, value = series
        return {**self._tags, LABELS[name]: value} if name in LABELS else self._tags


def _tag_keys(name: str) -> tuple[str, ...]:
    return ("run", "node", LABELS[name]) if name in LABELS else ("run", "node")
