"""Score some rows of a shard with a second bundle, too: which rows, and by what.

    shard, its outputs -> [auditor] -> rows drawn, by the second bundle -> audit counts -> receipt

Each row is drawn by itself, by a hash of the name of its shard and its place there: whichever actor
scores the shard, in whatever order and however often, draws the same, and a larger share draws the
same rows and more. Rows and not texts are drawn, so that a text counts as often as it occurs and a
share of the rows drawn has the interval of independent draws: a hash of the text alone would draw
all copies of a frequent text or none of them. This module knows nothing of files or receipts.

Shape suffixes: N rows, U different texts of a shard, D rows drawn, A different texts of these, C
outputs of a text.
"""

import hashlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastformers.cluster.shards.audit_counts import AuditCounts, count_audit
from fastformers.inference.bundle import Bundle
from fastformers.inference.scorer import Scorer
from fastformers.inference.tokenizer import TokenizedRows

# SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195).
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def draw_rows(shard: str, places_N: NDArray[np.integer], share: float) -> NDArray[np.bool_]:
    """Which rows (N,) of a shard are drawn.

    Args:
        shard: Name of the shard.
        places_N: Place of each row in the shard.
        share: Chance of each row, above 0 and at most 1.
    """
    seed = int.from_bytes(hashlib.sha256(f"audit {shard}".encode()).digest()[:8], "little")
    mixed_N = np.uint64(seed) + places_N.astype(np.uint64) * np.uint64(_STEP)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(_FIRST)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(_SECOND)
    mixed_N ^= mixed_N >> np.uint64(31)
    drawn_N: NDArray[np.bool_] = (mixed_N >> np.uint64(11)) * 2.0**-53 < share
    return drawn_N


class Auditor:
    """The second bundle of a worker, opened when the first row is drawn.

    It is run by the reference engine on the worker's cores, whatever the worker scores with: that
    is what the quality of a bundle was measured with.
    """

    def __init__(
        self,
        open_bundle: Callable[[], Bundle],
        audited: Bundle,
        *,
        share: float,
        label_column: str | None,
        num_threads: int,
    ) -> None:
        """Set up an auditor; nothing is loaded.

        Args:
            open_bundle: Function that opens its bundle, verified.
            audited: The bundle that it audits.
            share: Chance of a row to be drawn.
            label_column: Column of the shards with the right labels, or None.
            num_threads: Threads that compute one batch.
        """
        self._open_bundle, self._audited = open_bundle, audited
        self._share, self._label_column = share, label_column
        self._num_threads = num_threads
        self._scorer: Scorer | None = None

    def audit(
        self,
        shard: str,
        table: pa.Table,
        rows: TokenizedRows,
        logits_UC: NDArray[np.float32],
        *,
        may_score: bool = True,
    ) -> AuditCounts:
        """Count how far both bundles agree on the rows of a shard that are drawn.

        Args:
            shard: Name of the shard.
            table: The shard as stored, see `layout.build_shard_table`.
            rows: Token ids of its U texts.
            logits_UC: Outputs of the bundle that is audited; a text that is not finite has failed,
                and its rows are not audited.
            may_score: Whether the second bundle may be asked; else all rows drawn have failed.

        Raises:
            BundleError: The second bundle is missing, damaged, or not the run's.
        """
        places = np.flatnonzero(table["unique"].is_valid().to_numpy())
        places = places[draw_rows(shard, table["place"].to_numpy()[places], self._share)]
        texts_D = table["unique"].fill_null(-1).to_numpy()[places]
        is_good_D = np.isfinite(logits_UC[texts_D]).all(axis=1)
        places, texts_D = places[is_good_D], texts_D[is_good_D]
        if not may_score or not len(places):
            return AuditCounts(num_failed=len(places))
        labels = None
        if self._label_column is not None:
            labels = table[f"keep.{self._label_column}"].take(pa.array(places)).to_pylist()
        texts_A, which_D = np.unique(texts_D, return_inverse=True)
        return count_audit(
            logits_UC[texts_D],
            self._score(rows, texts_A)[which_D],
            self._audited.task,
            self._audited.labels,
            labels,
        )

    def _score(self, rows: TokenizedRows, texts_A: NDArray[np.intp]) -> NDArray[np.float32]:
        """Outputs (A, C) of texts, in the order of the audited bundle's; NaN where it fails."""
        if self._scorer is None:
            self._scorer = Scorer(self._open_bundle(), num_threads=self._num_threads)
        own = self._scorer.bundle.labels
        logits_AC = self._scorer.score_tokens(rows, rows_U=texts_A).logits_UC
        if not own:
            return logits_AC
        return logits_AC[:, [own.index(name) for name in self._audited.labels]]
