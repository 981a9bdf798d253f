"""Where a run stands while it goes.

    driver -> [progress] -> console, status

A plain value; this module knows nothing of drivers, nodes or prices.
"""

from dataclasses import dataclass

from cluster.shards.receipts import Receipt


@dataclass(frozen=True, kw_only=True)
class Progress:
    """State of a run, to be shown.

    Attributes:
        receipts: Receipts of the shards finished since the last call.
        num_done, num_known: Shards finished in this run; shards known to this run.
        predicted_left_s: Core-seconds of the known shards that are not finished, and of the slices
            that are not cut yet, taken to be like those that are.
        num_slices_left: Slices still to cut.
    """

    receipts: list[Receipt]
    num_done: int
    num_known: int
    predicted_left_s: float
    num_slices_left: int
