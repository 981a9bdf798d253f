"""A whole run: from a corpus and a bundle to predictions and a report.

    corpus + bundle -> shards -> actors -> predictions -> report

This is what `fastformers prepare` and `fastformers score` call. It decides what the work is,
refuses to mix it with other work in the same directory, and starts from what is already there.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from cluster import prepared
from cluster.actor import Work
from cluster.corpus import Corpus, open_corpus
from cluster.driver import Driver, Progress
from cluster.pool import ActorPool, connect, plan_pool
from cluster.predictions import Receipt, read_errors, read_receipt
from cluster.prepared import Preparation
from cluster.shards import Shard, plan_shard_seconds
from cluster.split import measure_split
from cluster.storage import Directory, open_directory
from fastformers.bundle import Bundle, open_bundle
from fastformers.errors import ChangedWorkError, InputError

RUN_FILE = "run.json"
REPORT_FILE = "report.json"
DEAD_LETTERS_FILE = "dead_letters.parquet"
_DEAD_LETTER_SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("part_row", pa.int64()),
        ("corpus_row", pa.int64()),
        ("file", pa.string()),
        ("file_row", pa.int64()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """What of a corpus is read, and how it is cut.

    Attributes:
        text_column: Column with the text.
        text_pair_column: Column with the second text of a pair, or None.
        keep_columns: Columns to pass through to the predictions.
        limit: Rows to take from the start of the corpus, or None for all.
        shard_seconds: Predicted seconds of a shard on one core; None to choose by corpus size.
        skip_unreadable_files: Leave out files that cannot be read.
    """

    text_column: str = "text"
    text_pair_column: str | None = None
    keep_columns: tuple[str, ...] = ()
    limit: int | None = None
    shard_seconds: float | None = None
    skip_unreadable_files: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit {self.limit}: give at least 1")
        if self.shard_seconds is not None and self.shard_seconds <= 0:
            raise InputError(f"--shard-seconds {self.shard_seconds:g}: give more than 0")
        if len(set(self.keep_columns)) < len(self.keep_columns):
            raise InputError("--keep-columns names a column twice")
        taken = {"label", "probability", "error"} & set(self.keep_columns)
        if taken:
            raise InputError(
                f"--keep-columns {taken.pop()}: the predictions have a column of that name; "
                "rename yours"
            )


@dataclass(frozen=True, kw_only=True)
class ActorSettings:
    """Who does the work; none of this changes a prediction.

    Attributes:
        num_actors: Over all nodes; None for as many as fit.
        cores_per_actor: Physical cores of each; None to measure which split is fastest.
        oversubscribe: Allow actors to share cores.
        address: Of a Ray cluster; None for RAY_ADDRESS, or a new one on this machine.
        timeout_s: Seconds that one shard may take; None for 30 times the prediction.
    """

    num_actors: int | None = None
    cores_per_actor: int | None = 1
    oversubscribe: bool = False
    address: str | None = None
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise InputError(f"--timeout-s {self.timeout_s:g}: give more than 0")


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
        wall_s: Seconds from start to end, starting Ray included.
        setup_s: Of these, until the first lease could be handed out.
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
    wall_s: float
    setup_s: float


@dataclass(frozen=True, kw_only=True)
class ScoreRun:
    """A run that is decided but not started.

    Attributes:
        bundle: What scores.
        output: Where predictions go; None to prepare only.
        shards: Where prepared shards are or go.
        corpus: What to prepare, or None if `shards` is complete.
        settings: Of the corpus.
        keep_columns: Columns to pass through.
        max_batch_tokens: Token budget of a batch.
        fail_on_bad_row: Stop at a row that cannot be scored.
        identity: What makes this the same work when it is run again.
    """

    bundle: Bundle
    output: Directory | None
    shards: Directory
    corpus: Corpus | None
    settings: CorpusSettings
    keep_columns: tuple[str, ...]
    max_batch_tokens: int
    fail_on_bad_row: bool
    identity: dict[str, Any]

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
        say: Callable[[str], None],
    ) -> RunResult:
        """Do it, starting from what is on disk.

        Args:
            actors: Who does the work.
            on_progress: Called about once a second.
            say: Shows a line to the user.

        Raises:
            FastformersError: See `fastformers.errors`.
        """
        start = time.perf_counter()
        self._claim_directories()
        resumed = self._finished()
        slice_receipts, slices = self._slices(resumed)
        shards = [shard for receipt in slice_receipts for shard in receipt.shards]
        if self.corpus is None:
            shards = prepared.load_shards(self.shards)
        if not slices and (self.output is None or all(s.name in resumed for s in shards)):
            return self._conclude(None, shards, resumed, start, start)
        with connect(actors.address):
            pool = self._plan_pool(actors, say)
            for line in pool.self_check:
                say(line)
            driver = Driver(
                pool,
                slices=slices,
                shards=shards,
                scores=self.output is not None,
                done=frozenset(resumed),
                timeout_s=actors.timeout_s,
                fail_on_bad_row=self.fail_on_bad_row,
                on_progress=on_progress,
            )
            try:
                pool.start()
                setup = time.perf_counter()
                driver.run()
            finally:
                pool.stop()
            return self._conclude(driver, driver.shards, resumed, start, setup)

    def describe(self) -> dict[str, Any]:
        """What it would do, without doing any of it."""
        plan: dict[str, Any] = {
            "bundle": str(self.bundle.path),
            "output": str(self.output or self.shards),
            "max_batch_tokens": self.max_batch_tokens,
            "shards_done": len(self._finished()),
        }
        if self.corpus is None:
            return {**plan, "shards": len(prepared.load_shards(self.shards))}
        assert self.preparation is not None
        return {
            **plan,
            "files": len(self.corpus.files),
            "file_bytes": sum(file.size_bytes for file in self.corpus.files),
            "slices": len(self.corpus.plan_slices(limit=self.settings.limit)),
            "shard_seconds": self.preparation.shard_seconds,
            "skipped_files": self.corpus.skipped,
        }

    def work(self) -> Work:
        """What the actors of this run share."""
        return Work(
            bundle_path=self.bundle.path.absolute(),
            shards=self.shards,
            preparation=self.preparation,
            predictions=None if self.output is None else self.output.child("predictions"),
            keep_columns=self.keep_columns,
            max_batch_tokens=self.max_batch_tokens,
        )

    def _plan_pool(self, actors: ActorSettings, say: Callable[[str], None]) -> ActorPool:
        work = self.work()
        cores = actors.cores_per_actor
        if cores is None:
            cores = measure_split(work, say) if self.output is not None else 1
        return plan_pool(
            work,
            num_actors=actors.num_actors,
            cores_per_actor=cores,
            oversubscribe=actors.oversubscribe,
        )

    def _claim_directories(self) -> None:
        """Make the directories, or check that they hold this very work."""
        home, file = (
            (self.shards, prepared.IDENTITY_FILE)
            if self.output is None
            else (self.output, RUN_FILE)
        )
        claimed = home.read_json(file)
        if claimed is not None:
            _check_same(home, claimed["identity"], self.identity)
        elif not home.is_empty():
            raise InputError(
                f"--output {home}: is not empty and holds no run of ours; choose another directory"
            )
        home.create()
        if self.corpus is not None:
            self.shards.child("slices").create()
        if self.output is not None:
            self.output.child("predictions").create()
            self.output.child("predictions").delete_leftovers()
        self.shards.delete_leftovers()
        if claimed is None:
            home.write_json(file, {"complete": False, "identity": self.identity})

    def _slices(self, resumed: Collection[str]) -> tuple[list[prepared.SliceReceipt], list[Any]]:
        if self.corpus is None:
            return [], []
        slices = self.corpus.plan_slices(limit=self.settings.limit)
        return prepared.load_progress(self.shards, slices, resumed)

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
    ) -> RunResult:
        shards = sorted(shards, key=lambda shard: shard.name)
        receipts = driver.receipts if driver is not None else []
        dead_letters = 0
        if self.output is None:
            prepared.identify(self.shards, self.identity, complete=True)
        else:
            dead_letters = _write_dead_letters(self.output, shards, [*resumed.values(), *receipts])
            if self.corpus is not None and self.shards.path.startswith(self.output.path):
                self._tidy(shards)
        phase_s: dict[str, float] = {}
        for slice_receipt in driver.slice_receipts if driver is not None else []:
            for phase, seconds in slice_receipt.phase_s.items():
                phase_s[phase] = phase_s.get(phase, 0.0) + seconds
        slots = driver.slots if driver is not None else []
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
            wall_s=time.perf_counter() - start,
            setup_s=setup - start,
        )

    def _tidy(self, shards: list[Shard]) -> None:
        """Remove the token ids that only this run needed; its record of slices stays."""
        left = set(self.shards.list_files())
        for shard in shards:
            if shard.file_name in left:
                self.shards.filesystem.delete_file(f"{self.shards.path}/{shard.file_name}")


def plan_prepare(
    corpus_uri: str, bundle_path: Path, output_uri: str, settings: CorpusSettings
) -> ScoreRun:
    """Decide on a run that only prepares shards."""
    bundle, corpus = _open(corpus_uri, bundle_path, settings)
    return ScoreRun(
        bundle=bundle,
        output=None,
        shards=open_directory(output_uri),
        corpus=corpus,
        settings=settings,
        keep_columns=settings.keep_columns,
        max_batch_tokens=bundle.cost_profile.max_batch_tokens,
        fail_on_bad_row=False,
        identity=_corpus_identity(bundle, corpus, settings),
    )


def plan_score(
    corpus_uri: str,
    bundle_path: Path,
    output_uri: str,
    settings: CorpusSettings,
    *,
    max_batch_tokens: int | None,
    fail_on_bad_row: bool,
) -> ScoreRun:
    """Decide on a run that scores a corpus, or shards that `prepare` made of one.

    Raises:
        InputError: The corpus, the shards or the settings do not fit the bundle.
    """
    if max_batch_tokens is not None and max_batch_tokens < 1:
        raise InputError(f"--max-batch-tokens {max_batch_tokens}: give at least 1")
    output = open_directory(output_uri)
    source = open_directory(corpus_uri)
    is_prepared = "*" not in corpus_uri and source.read_json(prepared.IDENTITY_FILE) is not None
    corpus: Corpus | None = None
    if is_prepared:
        bundle = open_bundle(bundle_path)
        identity = _prepared_identity(source, bundle, settings)
    else:
        bundle, corpus = _open(corpus_uri, bundle_path, settings)
        identity = _corpus_identity(bundle, corpus, settings)
    budget = max_batch_tokens or bundle.cost_profile.max_batch_tokens
    identity.update(
        {
            "bundle": bundle.digest,
            "max batch tokens": budget,
            "keep columns": list(settings.keep_columns),
        }
    )
    return ScoreRun(
        bundle=bundle,
        output=output,
        shards=source if is_prepared else output.child("shards"),
        corpus=corpus,
        settings=settings,
        keep_columns=settings.keep_columns,
        max_batch_tokens=budget,
        fail_on_bad_row=fail_on_bad_row,
        identity=identity,
    )


def _open(uri: str, bundle_path: Path, settings: CorpusSettings) -> tuple[Bundle, Corpus]:
    bundle = open_bundle(bundle_path)
    if bundle.text_pairs and settings.text_pair_column is None:
        raise InputError(f"{bundle_path} scores text pairs: give --text-pair-column")
    if not bundle.text_pairs and settings.text_pair_column is not None:
        raise InputError(f"{bundle_path} scores single texts: leave --text-pair-column out")
    columns = tuple(c for c in (settings.text_column, settings.text_pair_column) if c is not None)
    corpus = open_corpus(
        uri,
        text_columns=columns,
        keep_columns=settings.keep_columns,
        skip_unreadable=settings.skip_unreadable_files,
    )
    return bundle, corpus


def _corpus_identity(bundle: Bundle, corpus: Corpus, settings: CorpusSettings) -> dict[str, Any]:
    return {
        "corpus files": corpus.digest,
        "tokenizer": bundle.preparation_digest,
        "text columns": list(corpus.reader.text_columns),
        "keep columns": list(settings.keep_columns),
        "limit": settings.limit,
        "shard seconds": settings.shard_seconds,
        "cost profile": list(bundle.cost_profile.seconds_per_row),
    }


def _prepared_identity(
    source: Directory, bundle: Bundle, settings: CorpusSettings
) -> dict[str, Any]:
    """Identity of prepared shards, after checking that they suit the bundle and settings."""
    identity: dict[str, Any] = dict(source.read_json(prepared.IDENTITY_FILE)["identity"])
    if identity["tokenizer"] != bundle.preparation_digest:
        raise InputError(
            f"{source}: prepared for another tokenizer, maximum length or kind of input than "
            f"{bundle.path} has; prepare the corpus with this bundle"
        )
    missing = [name for name in settings.keep_columns if name not in identity["keep columns"]]
    if missing:
        kept = ", ".join(identity["keep columns"]) or "none"
        raise InputError(
            f"{source}: --keep-columns {','.join(missing)}: not prepared (kept columns: {kept}); "
            "prepare again with it"
        )
    if settings.limit is not None:
        raise InputError(f"{source}: --limit applies when a corpus is prepared, not to its shards")
    return identity


def _check_same(home: Directory, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise ChangedWorkError(
            f"--output {home}: holds the work of another run: {', '.join(changed)} changed since; "
            "choose another directory, or delete this one to start over"
        )


def _write_dead_letters(output: Directory, shards: list[Shard], receipts: list[Receipt]) -> int:
    """List the rows without a prediction, by file and row; returns how many there are."""
    num_errors = {receipt.shard: receipt.num_errors for receipt in receipts}
    letters: list[dict[str, Any]] = []
    corpus_row = 0
    file, file_row = "", 0
    predictions = output.child("predictions")
    for shard in shards:
        errors = dict(read_errors(predictions, shard.file_name)) if num_errors[shard.name] else {}
        part_row = 0
        for path, num_rows in shard.spans:
            file, file_row = path, (file_row if path == file else 0)
            letters.extend(
                {
                    "part": shard.file_name,
                    "part_row": row,
                    "corpus_row": corpus_row + row,
                    "file": path,
                    "file_row": file_row + row - part_row,
                    "error": error,
                }
                for row, error in errors.items()
                if part_row <= row < part_row + num_rows
            )
            part_row += num_rows
            file_row += num_rows
        corpus_row += part_row
    with output.write(DEAD_LETTERS_FILE) as sink:
        pyarrow.parquet.write_table(pa.Table.from_pylist(letters, _DEAD_LETTER_SCHEMA), sink)
    return len(letters)
