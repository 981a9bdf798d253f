"""What an actor was given to do, when, and whether it lived to do it.

    driver -> [attempts] -> bill, timeline

All times are the driver's: one clock, whatever the clocks of the nodes say.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One job of one actor, from the moment it was handed out until the driver heard of its end.

    Attributes:
        actor: Who did it; an actor that replaces a dead one has its name.
        job: Cut a slice, score a shard, or search a shard for the text that kills its actor.
        name: Of the slice or the shard.
        number: How often it was tried, this time included.
        start_s, end_s: Seconds since the run's start.
        is_lost: Whether the actor died over it.
        phase_s: Seconds by phase as the actor measured them; none for what is not kept.
    """

    actor: str
    job: Literal["prepare", "score", "search"]
    name: str
    number: int
    start_s: float
    end_s: float
    is_lost: bool
    phase_s: dict[str, float] = field(default_factory=dict)
