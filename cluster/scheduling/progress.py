"""Where a run stands while it goes.

    driver -> [progress] -> console, status

A plain value; this module knows nothing of drivers, Ray or prices.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Progress:
    """State of a run, to be shown; all sums count from the start of this run.

    Attributes:
        elapsed_s: Seconds since the start of the run.
        num_done, num_known: Shards finished in this run; shards known to this run.
        num_rows, num_tokens, num_errors: Of the shards finished; errors are rows not scored.
        num_retries: Leases that were lost with their worker.
        predicted_done_s: Core-seconds that were predicted of the shards finished.
        predicted_left_s: Core-seconds of the known shards that are not finished, and of the slices
            that are not cut yet, taken to be like those that are.
        num_slices_left: Slices still to cut.
        node_s: Seconds that nodes were used so far, those that have left included, by the instance
            type; None for nodes of an unknown type.
        num_nodes, num_actors: Nodes that work now, and their slots.
        doing: Number of slots by what they do: a phase of `receipts.PHASES`, "store" where storage
            does not answer, "wait" where there is nothing to do.
        notices: Lines that nodes want shown, such as storage that does not answer.
    """

    elapsed_s: float
    num_done: int
    num_known: int
    num_rows: int
    num_tokens: int
    num_errors: int
    num_retries: int
    predicted_done_s: float
    predicted_left_s: float
    num_slices_left: int
    node_s: Mapping[str | None, float]
    num_nodes: int
    num_actors: int
    doing: Mapping[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
