"""Settings of a cascade: whether there is one, of what, and how much it may lose.

    flags -> [config] -> threshold, build

This module does not import torch, so that the command can show its flags without loading it.
"""

from dataclasses import dataclass, field
from pathlib import Path

from fastformers.options import check_option, option


@dataclass(frozen=True, kw_only=True)
class CascadeConfig:
    """A second, better graph for the rows that the student is unsure of."""

    cascade: bool = field(
        default=False,
        metadata=option(
            "the student scores every row, and rows that it is unsure of go on to a second graph "
            "in the same bundle: int8 of the teacher"
        ),
    )
    cascade_with: Path | None = field(
        default=None,
        metadata=option(
            "bundle whose graph is the second one (int8 of the teacher)", metavar="BUNDLE"
        ),
    )
    cascade_drop: float = field(
        default=0.2,
        metadata=option(
            "points of 100 x the task's metric that the cascade may lose to its second graph",
            metavar="POINTS",
        ),
    )

    def __post_init__(self) -> None:
        check_option(self, "cascade_drop", 0 <= self.cascade_drop <= 100, "0 to 100")
