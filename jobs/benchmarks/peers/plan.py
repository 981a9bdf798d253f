"""What the whole jobs of others are to do: everything that is refused before anything is measured.

    options, texts, subject -> [plan] -> PeerPlan -> runners, turns

This module measures nothing.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastformers.cluster.delivery.bundle_delivery import pin_bundle
from fastformers.cluster.settings import CorpusSettings
from fastformers.data.examples import Columns
from fastformers.errors import InputError
from fastformers.inference.bundle import Bundle
from fastformers.inference.manifest import TOKENIZER_FILE
from fastformers.jobs.benchmarks.parts import BaselinesPart
from fastformers.jobs.benchmarks.peers.catalog import BaselineName
from fastformers.jobs.benchmarks.peers.runners import (
    PeerSettings,
    baseline_runners,
    our_runner,
)
from fastformers.jobs.benchmarks.peers.scripts.work import Work
from fastformers.jobs.benchmarks.peers.texts import (
    DifferentTexts,
    classes_of,
    write_training_rows,
)
from fastformers.jobs.benchmarks.peers.turns import TurnSettings, run_in_turns
from fastformers.jobs.benchmarks.subject import Subject
from fastformers.jobs.benchmarks.whole_jobs import JobSettings


@dataclass(frozen=True, kw_only=True)
class PeerPlan:
    """Whole jobs that are ready to run.

    Attributes:
        names: The baselines.
        work: What they do, but for the texts and the output.
        peers: What they need beside.
        texts: The texts.
        true_labels: Name of each text's class; None without labels.
        min_seconds: Seconds that a run lasts at least, while there are texts.
    """

    names: Sequence[BaselineName]
    work: Work
    peers: PeerSettings
    texts: DifferentTexts
    true_labels: Sequence[str] | None
    min_seconds: float

    def measure(
        self, bundle: Bundle, settings: JobSettings, *, log: Callable[[str], None]
    ) -> BaselinesPart:
        """Run ours and theirs in turns.

        Args:
            bundle: What ours runs.
            settings: How it runs.
            log: Shows a line to the user.
        """
        scratch = Path(self.work.scratch)
        return run_in_turns(
            our_runner(bundle, settings, scratch / "fastformers"),
            baseline_runners(self.names, self.work, settings, self.peers, log=log),
            self.texts,
            TurnSettings(
                min_seconds=self.min_seconds,
                repeats=settings.repeats,
                num_workers=self.work.num_workers,
            ),
            true_labels=self.true_labels,
            log=log,
        )


def plan_peers(
    options: argparse.Namespace,
    names: Sequence[BaselineName],
    subject: Subject,
    texts: DifferentTexts,
    settings: CorpusSettings,
    *,
    num_workers: int,
    scratch: Path,
) -> PeerPlan | None:
    """Plan the jobs that `--peers` names.

    Args:
        options: Options of `fastformers bench`.
        names: The baselines.
        subject: The bundle, and its weights as others run them.
        texts: The texts of the corpus.
        settings: How the corpus is read.
        num_workers: Processes of each job.
        scratch: Directory for what is made.

    Returns:
        The plan; None where the checkpoint is missing.

    Raises:
        InputError: Labels do not suit the bundle, or the bundle of static vectors is none.
    """
    if subject.baselines is None or subject.checkpoint is None:
        return None
    labels = subject.bundle.labels
    scratch = scratch / "peers"
    scratch.mkdir()
    true_labels = _true_labels(options, texts, labels)
    train = _write_train(options, texts, labels, settings, scratch)
    return PeerPlan(
        names=names,
        work=Work(
            files=(),
            model=str(subject.checkpoint),
            stock_graph=str(subject.baselines.stock_graph),
            float_graph=str(subject.baselines.float_graph),
            tokenizer=str(subject.checkpoint / TOKENIZER_FILE),
            labels=labels,
            max_length=subject.bundle.max_length,
            train=train,
            scratch=str(scratch),
            output="",
            num_workers=num_workers,
            started_at=0.0,
        ),
        peers=PeerSettings(
            environments=options.peer_env, static_bundle=_open_static(options, subject.bundle)
        ),
        texts=texts,
        true_labels=true_labels,
        min_seconds=options.min_seconds,
    )


def _true_labels(
    options: argparse.Namespace, texts: DifferentTexts, labels: Sequence[str]
) -> list[str] | None:
    """Name of each text's class, by the bundle's names; None without labels."""
    if texts.labels is None:
        return None
    where = f"{options.corpus}, column {options.label_column!r}"
    return [labels[place] for place in classes_of(texts.labels, labels, where)]


def _write_train(
    options: argparse.Namespace,
    texts: DifferentTexts,
    labels: Sequence[str],
    settings: CorpusSettings,
    scratch: Path,
) -> str | None:
    """Write the rows that others train on; returns their file, None where there are none."""
    if options.peer_train is None:
        return None
    columns = Columns(
        text=settings.text_column, label=options.label_column, text_files=settings.text_files
    )
    return write_training_rows(
        options.peer_train, columns, labels, without=texts.texts, directory=scratch
    )


def _open_static(options: argparse.Namespace, ours: Bundle) -> Bundle | None:
    """The bundle of static vectors, which must do the same task."""
    if options.static_bundle is None:
        return None
    bundle = pin_bundle(options.static_bundle).open()
    given = f"--static-bundle {options.static_bundle}"
    if bundle.num_layers != 0:
        raise InputError(f"{given}: has layers; make one by `compress --student-layers 0`")
    if (bundle.task, bundle.labels) != (ours.task, ours.labels):
        raise InputError(f"{given}: its task or its labels are not those of {ours}")
    return bundle
