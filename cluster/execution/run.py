"""A whole run: from a corpus and a bundle to predictions and a report.

    corpus + bundle -> shards -> actors -> predictions -> report

This is what `fastformers prepare` and `fastformers score` call. It decides what the work is,
refuses to mix it with other work in the same directory, and starts from what is already there.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.corpus.slices import Corpus
from cluster.execution.core_split import measure_split
from cluster.execution.driver import Driver, Progress
from cluster.execution.ray_pool import ActorPool, connect, plan_pool
from cluster.execution.worker import WorkerSpec
from cluster.settings import ActorSettings, CorpusSettings
from cluster.shards.dead_letters import DEAD_LETTERS_FILE, write_dead_letters
from cluster.shards.layout import Shard, plan_shard_seconds
from cluster.shards.predictions import read_receipt
from cluster.shards.preparation import (
    IDENTITY_FILE,
    Preparation,
    SliceReceipt,
    identify,
    load_progress,
    load_shards,
)
from cluster.shards.receipts import Attempt, Receipt
from cluster.storage import Directory
from fastformers.errors import ChangedWorkError, InputError, ScoringError
from fastformers.inference.autotune import EngineName
from fastformers.inference.bundle import Bundle

RUN_FILE = "run.json"


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run did.

    Attributes:
        shards: All shards of the corpus, in corpus order.
        receipts: Of the shards scored in this run.
        resumed: Of the shards that earlier runs had scored.
        slice_phase_s: Seconds of preparing, by phase.
        dead_letters: Rows without a prediction.
        skipped_files: Unreadable files that were left out, with the reason.
        self_check: Which actors ran on which cores.
        num_actors, num_machines: How many there were.
        num_retries: Leases that were lost with their actor.
        attempts: What each actor was given to do, in the order in which it ended.
        actor_cores: Cores that each actor owned.
        num_idle_cores: Cores of their nodes that none owned.
        started_at: When it started, in seconds since the epoch.
        wall_s: Seconds from start to end, starting Ray included.
        setup_s: Of these, until the first lease could be handed out.
        work_end_s: Of these, until the last one was done.
    """

    shards: list[Shard]
    receipts: list[Receipt]
    resumed: list[Receipt]
    slice_phase_s: dict[str, float]
    dead_letters: int
    skipped_files: dict[str, str]
    self_check: list[str]
    num_actors: int
    num_machines: int
    num_retries: int
    attempts: list[Attempt]
    actor_cores: dict[str, int]
    num_idle_cores: int
    started_at: float
    wall_s: float
    setup_s: float
    work_end_s: float


@dataclass(frozen=True, kw_only=True)
class ScoreRun:
    """A run that is decided but not started.

    Attributes:
        bundle: What scores.
        output: Where predictions go; None to prepare only.
        shards: Where prepared shards are or go.
        corpus: What to prepare, or None if `shards` is complete.
        settings: Of the corpus.
        max_batch_tokens: Token budget of a batch.
        fail_on_bad_row: Stop at a row that cannot be scored.
        engine: What runs the graph.
        identity: What makes this the same work when it is run again.
    """

    bundle: Bundle
    output: Directory | None
    shards: Directory
    corpus: Corpus | None
    settings: CorpusSettings
    max_batch_tokens: int
    fail_on_bad_row: bool
    identity: dict[str, Any]
    engine: EngineName = "onnxruntime"

    @property
    def preparation(self) -> Preparation | None:
        """How slices become shards, or None if all are there."""
        if self.corpus is None:
            return None
        profile = self.bundle.cost_profile
        return Preparation(
            directory=self.shards,
            reader=self.corpus.reader,
            cost_profile=profile,
            shard_seconds=self.settings.shard_seconds
            or plan_shard_seconds(self.corpus.text_bytes, profile.estimate_seconds_per_token()),
        )

    def run(
        self,
        actors: ActorSettings,
        on_progress: Callable[[Progress], None],
        log: Callable[[str], None],
    ) -> RunResult:
        """Do it, starting from what is on disk.

        Args:
            actors: Who does the work.
            on_progress: Called about once a second.
            log: Shows a line to the user.

        Raises:
            FastformersError: See `fastformers.errors`.
        """
        start = time.perf_counter()
        self._claim_directories()
        resumed = self._finished()
        slice_receipts, slices = self._slices(resumed)
        shards = [shard for receipt in slice_receipts for shard in receipt.shards]
        if self.corpus is None:
            shards = load_shards(self.shards)
        if not slices and (self.output is None or all(s.name in resumed for s in shards)):
            return self._conclude(None, shards, resumed, start, start, start)
        with connect(actors.address):
            pool = self._plan_pool(actors, log)
            for line in pool.self_check:
                log(line)
            driver = Driver(
                pool,
                slices=slices,
                shards=shards,
                scores=self.output is not None,
                done=frozenset(resumed),
                timeout_s=actors.timeout_s,
                fail_on_bad_row=self.fail_on_bad_row,
                on_progress=on_progress,
                start=start,
            )
            try:
                pool.start()
                setup = time.perf_counter()
                driver.run()
                work_end = time.perf_counter()
            finally:
                pool.stop()
            return self._conclude(driver, driver.shards, resumed, start, setup, work_end)

    def describe(self) -> dict[str, Any]:
        """What it would do, without doing any of it."""
        plan: dict[str, Any] = {
            "bundle": str(self.bundle.path),
            "output": str(self.output or self.shards),
            "max_batch_tokens": self.max_batch_tokens,
            "engine": self.engine,
            "shards_done": len(self._finished()),
        }
        if self.corpus is None:
            return {**plan, "shards": len(load_shards(self.shards))}
        assert self.preparation is not None
        return {
            **plan,
            "files": len(self.corpus.files),
            "file_bytes": sum(file.size_bytes for file in self.corpus.files),
            "slices": len(self.corpus.plan_slices(limit=self.settings.limit)),
            "shard_seconds": self.preparation.shard_seconds,
            "skipped_files": self.corpus.skipped,
        }

    def work(self) -> WorkerSpec:
        """What the actors of this run share."""
        return WorkerSpec(
            bundle_path=self.bundle.path.absolute(),
            shards=self.shards,
            preparation=self.preparation,
            predictions=None if self.output is None else self.output.child("predictions"),
            keep_columns=self.settings.keep_columns,
            max_batch_tokens=self.max_batch_tokens,
            engine=self.engine,
        )

    def _plan_pool(self, actors: ActorSettings, log: Callable[[str], None]) -> ActorPool:
        work = self.work()
        cores = actors.cores_per_actor
        if cores is None:
            cores = measure_split(work, log) if self.output is not None else 1
        return plan_pool(
            work,
            num_actors=actors.num_actors,
            cores_per_actor=cores,
            oversubscribe=actors.oversubscribe,
        )

    def _claim_directories(self) -> None:
        """Make the directories, or check that they hold this very work."""
        home, file = (
            (self.shards, IDENTITY_FILE) if self.output is None else (self.output, RUN_FILE)
        )
        claimed = home.read_json(file)
        if claimed is not None:
            if not (isinstance(claimed, dict) and isinstance(claimed.get("identity"), dict)):
                raise InputError(f"--output {home}: {file} is not ours; choose another directory")
            _check_same(home, claimed["identity"], self.identity)
        elif not home.is_empty():
            raise InputError(
                f"--output {home}: is not empty and holds no run of ours; choose another directory"
            )
        home.create()
        if claimed is None and self.output is None:
            identify(self.shards, self.identity, complete=False)
        elif claimed is None:
            home.write_json(file, {"identity": self.identity})
        if self.corpus is not None:
            self.shards.child("slices").create()
        if self.output is not None:
            self.output.child("predictions").create()
            self.output.child("predictions").delete_leftovers()
        self.shards.delete_leftovers()

    def _slices(self, resumed: Collection[str]) -> tuple[list[SliceReceipt], list[Any]]:
        if self.corpus is None:
            return [], []
        slices = self.corpus.plan_slices(limit=self.settings.limit)
        return load_progress(self.shards, slices, resumed)

    def _finished(self) -> dict[str, Receipt]:
        """Receipts of the predictions that are on disk and whole, by shard."""
        if self.output is None:
            return {}
        predictions = self.output.child("predictions")
        receipts = (read_receipt(predictions, name) for name in predictions.list_files())
        return {receipt.shard: receipt for receipt in receipts if receipt is not None}

    def _conclude(
        self,
        driver: Driver | None,
        shards: list[Shard],
        resumed: dict[str, Receipt],
        start: float,
        setup: float,
        work_end: float,
    ) -> RunResult:
        shards = sorted(shards, key=lambda shard: shard.name)
        receipts = driver.receipts if driver is not None else []
        dead_letters = 0
        if self.output is None:
            identify(self.shards, self.identity, complete=True)
        else:
            dead_letters = write_dead_letters(self.output, shards, [*resumed.values(), *receipts])
            if dead_letters and self.fail_on_bad_row:
                raise ScoringError(
                    f"{self.output}/{DEAD_LETTERS_FILE}: lists {dead_letters} rows that could not "
                    "be scored; repair them, or use --on-bad-row dead-letter"
                )
            if self.corpus is not None:  # else the shards were prepared to be kept
                self._tidy(shards)
        phase_s: dict[str, float] = {}
        for slice_receipt in driver.slice_receipts if driver is not None else []:
            for phase, seconds in slice_receipt.phase_s.items():
                phase_s[phase] = phase_s.get(phase, 0.0) + seconds
        slots = driver.slots if driver is not None else []
        wall_s = time.perf_counter() - start
        return RunResult(
            shards=shards,
            receipts=receipts,
            resumed=list(resumed.values()),
            slice_phase_s=phase_s,
            dead_letters=dead_letters,
            skipped_files=self.corpus.skipped if self.corpus is not None else {},
            self_check=driver.self_check if driver is not None else [],
            num_actors=len(slots),
            num_machines=max(1, len({slot.node_id for slot in slots})),
            num_retries=driver.num_retries if driver is not None else 0,
            attempts=driver.attempts if driver is not None else [],
            actor_cores=driver.actor_cores if driver is not None else {},
            num_idle_cores=driver.num_idle_cores if driver is not None else 0,
            started_at=time.time() - wall_s,
            wall_s=wall_s,
            setup_s=setup - start,
            work_end_s=work_end - start,
        )

    def _tidy(self, shards: list[Shard]) -> None:
        """Remove the token ids that only this run needed; its record of slices stays."""
        left = set(self.shards.list_files())
        for shard in shards:
            if shard.file_name in left:
                self.shards.filesystem.delete_file(f"{self.shards.path}/{shard.file_name}")


def _check_same(home: Directory, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise ChangedWorkError(
            f"--output {home}: holds the work of another run: {', '.join(changed)} changed since; "
            "choose another directory, or delete this one to start over"
        )
