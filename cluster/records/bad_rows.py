"""Rows that cannot be scored, by what is wrong with them, and when they are too many for a run.

    receipts of slices and shards -> [bad_rows] -> the run goes on, or ends with the commonest fault

A run whose rows are nearly all bad has read its corpus in a wrong way, and its bill would be for
nothing. The sums are those of all runs into an output, so that the same command ends in the same
way until the corpus or the limit changes. This module knows nothing of files.
"""

from collections import Counter

from fastformers.cluster.settings import BadRowLimit
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Receipt
from fastformers.errors import ScoringError


class BadRows:
    """Sums over the rows that were read.

    Attributes:
        num_rows: Rows read, good and bad.
        counts: Bad rows by kind, see `receipts.count_reasons`.
        examples: A bad row of a kind: its place and what is wrong with it.
    """

    def __init__(self) -> None:
        """Begin with no rows."""
        self.num_rows = 0
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    @property
    def num_bad(self) -> int:
        """Rows that cannot be scored."""
        return self.counts.total()

    def add_slice(self, receipt: SliceReceipt) -> None:
        """Count the rows of a slice."""
        self.num_rows += sum(shard.num_rows for shard in receipt.shards)
        self.counts.update(receipt.bad)
        if receipt.bad_example is not None:
            self.examples.setdefault(next(iter(receipt.bad)), receipt.bad_example)

    def add_receipt(self, receipt: Receipt) -> None:
        """Count the rows of a shard that could be read and not be scored."""
        self.counts.update(receipt.failures)
        for kind in receipt.failures:
            self.examples.setdefault(kind, f"shard {receipt.shard}: {kind}")

    def check(self, limit: BadRowLimit, *, are_all: bool, listed_in: str | None = None) -> None:
        """Refuse to go on, or to call the work done, with too many bad rows.

        Args:
            limit: How many there may be.
            are_all: Whether no rows are left to read or to score.
            listed_in: File that lists the bad rows, for the message.

        Raises:
            ScoringError: There are more; names the commonest kind with an example.
        """
        if not limit.is_exceeded(self.num_bad, self.num_rows, are_all=are_all):
            return
        [(kind, count)] = self.counts.most_common(1)
        seen = "" if are_all else " read so far"
        listed = "" if listed_in is None else f"{listed_in} lists them; "
        found = f"{self.num_bad:,} of {self.num_rows:,} rows{seen} cannot be scored, more than"
        advice = "raise --max-bad-rows: the same command then goes on from what is done"
        if are_all and self.num_bad == self.num_rows:
            found = f"none of the {self.num_rows:,} rows can be scored, and"
            advice = "give --max-bad-rows 100%, which alone bears that"
        allows = "does not bear that" if found.endswith("and") else "allows"
        raise ScoringError(
            f"{found} --max-bad-rows {limit} {allows}; {count:,} of them as "
            f"{self.examples.get(kind, kind)}; {listed}mend the corpus or the flags that say how "
            f"to read it, or {advice}"
        )
