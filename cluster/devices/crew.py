"""The nodes of a run by kind: who prepares, who scores, and which shards suit whom.

    nodes that join and leave -> [crew] -> Wants of a node -> backlog

Nodes on cores prepare, and score if the run scores on cores. Nodes on GPUs take shards that others
prepared; they prepare only while there is no node on cores. Where both kinds score, GPUs take the
longest shards and cores the shortest, because a core would keep all others waiting with a long one.
This module knows nothing of jobs or Ray.
"""

from collections import ChainMap
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fastformers.inference.engine import Device

_KINDS: tuple[Device, ...] = ("cpu", "cuda")
ON_CORES: tuple[Device, ...] = ("cpu",)


@dataclass(frozen=True, kw_only=True)
class Wants:
    """What a node may be given.

    Attributes:
        num_slots: Slots of all nodes of its kind; while fewer shards wait, slices come first.
        preparers, scorers: Identifiers of the nodes that are given slices, and shards.
        prepares, scores: Whether it is one of them.
        shortest: Whether it takes the shortest shards, and not the costliest.
        num_gpu_slots: Slots on GPUs that wait for what it prepares; 0 where all slots are alike.
    """

    num_slots: int
    preparers: Collection[str]
    scorers: Collection[str]
    prepares: bool = True
    scores: bool = True
    shortest: bool = False
    num_gpu_slots: int = 0


class Crew:
    """Nodes of a run, and the kinds of them that score."""

    def __init__(self, kinds: Collection[Device]) -> None:
        """Begin without nodes.

        Args:
            kinds: Kinds of nodes that score.
        """
        self._kinds = frozenset(kinds)
        self._had_scorers = False
        self._slots: dict[Device, dict[str, int]] = {kind: {} for kind in _KINDS}
        self._num_slots: dict[Device, int] = dict.fromkeys(_KINDS, 0)

    @property
    def is_mixed(self) -> bool:
        """Whether both kinds score."""
        return len(self._kinds) > 1

    @property
    def named(self) -> str:
        """What a node that scores is called in a message."""
        return "node with a GPU" if self._kinds == {"cuda"} else "node"

    def explain_absence(self, refused: Mapping[str, str]) -> str:
        """Why no node works.

        Args:
            refused: Why each node that was left out cannot work, by its name.
        """
        if refused:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
            return f"no {self.named} can work: {reasons}"
        if self._had_scorers:
            return f"every {self.named} has left the cluster; add nodes and run the same command"
        free = "GPUs" if self._kinds == {"cuda"} else "CPUs"
        return (
            f"no node has free {free}; wait until the cluster's other work has ended, or add "
            "nodes, and run the same command"
        )

    @property
    def has_scorers(self) -> bool:
        """Whether a node is there that scores."""
        return any(self._slots[kind] for kind in self._kinds)

    def has(self, kind: Device) -> bool:
        """Whether a node of a kind is there."""
        return bool(self._slots[kind])

    def set(self, node: str, kind: Device, num_slots: int) -> None:
        """Record that a node has so many slots now, whether it is new or not."""
        self._had_scorers |= kind in self._kinds
        self._num_slots[kind] += num_slots - self._slots[kind].get(node, 0)
        self._slots[kind][node] = num_slots

    def remove(self, node: str, kind: Device) -> None:
        """Forget a node that has left."""
        self._num_slots[kind] -= self._slots[kind].pop(node)

    def wants(self, kind: Device) -> Wants:
        """What a node of a kind may be given now."""
        slots = self._slots
        helps, is_slow = kind not in self._kinds, self.is_mixed and kind == "cpu"
        scorers: Collection[str] = ChainMap(*(slots[kind] for kind in self._kinds))
        return Wants(
            num_slots=self._num_slots[kind],
            preparers=slots["cpu"] or slots["cuda"],
            scorers=scorers,
            prepares=kind == "cpu" or not slots["cpu"],
            scores=not helps,
            shortest=is_slow,
            num_gpu_slots=self._num_slots["cuda"] if is_slow else 0,
        )
