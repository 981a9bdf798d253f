"""The nodes of a run by kind: who prepares, who scores, and which shards suit whom.

    nodes that join and leave -> [crew] -> Wants of a node -> backlog

Nodes on cores prepare, and score if the run scores on cores. Nodes on GPUs take shards that others
prepared; they prepare only while there is no node on cores. Where both kinds score, GPUs take the
longest shards and cores the shortest, because a core would keep all others waiting with a long one.
This module knows nothing of jobs or Ray.
"""

import math
from collections import ChainMap
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fastformers.inference.engine import Device

# What a GPU has ready: seconds of its work, in which cores read and tokenize the next slice, and at
# least so many shards.
_READY_S, _LEAST_READY = 8.0, 4
_ON_CORES: tuple[Device, ...] = ("cpu",)
_KINDS: tuple[Device, ...] = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class Wants:
    """What a node may be given.

    Attributes:
        num_slots: Slots of all nodes of its kind; while fewer shards wait, slices come first.
        preparers, scorers: Identifiers of the nodes that are given slices, and shards.
        prepares, scores: Whether it is one of them.
        shortest: Whether it takes the shortest shards, and not the costliest.
        num_gpu_shards: Shards for GPUs that should be ready or being cut; 0 where all are alike.
    """

    num_slots: int
    preparers: Collection[str]
    scorers: Collection[str]
    prepares: bool = True
    scores: bool = True
    shortest: bool = False
    num_gpu_shards: int = 0


class Crew:
    """Nodes of a run, and the kinds of them that score.

    Attributes:
        compares: Whether the kinds score in two precisions, whose agreement is to be told.
        gpu_shard_s: Core-seconds of a shard that is cut for GPUs, where both kinds score; else
            None.
    """

    def __init__(
        self,
        kinds: Collection[Device] = _ON_CORES,
        *,
        compares: bool = False,
        gpu_shard_s: float = 0.0,
    ) -> None:
        """Begin without nodes.

        Args:
            kinds: Kinds of nodes that score.
            compares: Whether they score in two precisions, whose agreement is to be told.
            gpu_shard_s: Core-seconds of a shard that is cut for GPUs.
        """
        self.compares = compares
        self.gpu_shard_s = gpu_shard_s if len(kinds) > 1 else None
        self._kinds = frozenset(kinds)
        self._had_scorers = False
        self._gpu_factor: float | None = None
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

    def learn(self, kind: Device, factor: float | None) -> None:
        """Take the pace of a node: seconds for each core-second predicted."""
        if kind == "cuda" and factor is not None:
            self._gpu_factor = factor

    def _num_gpu_shards(self) -> int:
        """Shards that GPUs do while others are cut."""
        each_s = (self.gpu_shard_s or 0.0) * (self._gpu_factor or math.inf)
        enough = _READY_S / each_s if each_s > 0 else 0.0
        return round(self._num_slots["cuda"] * max(_LEAST_READY, enough))

    def wants(self, kind: Device, *, may_grow: bool = False) -> Wants:
        """What a node of a kind may be given now.

        Args:
            kind: Its kind.
            may_grow: Whether nodes are starting, for which those on GPUs leave what is to prepare.
        """
        slots = self._slots
        helps, is_slow = kind not in self._kinds, self.is_mixed and kind == "cpu"
        scorers: Collection[str] = ChainMap(*(slots[kind] for kind in self._kinds))
        return Wants(
            num_slots=self._num_slots[kind],
            preparers=slots["cpu"] or slots["cuda"],
            scorers=scorers,
            prepares=kind == "cpu" or not (slots["cpu"] or may_grow),
            scores=not helps,
            shortest=is_slow,
            num_gpu_shards=self._num_gpu_shards() if is_slow else 0,
        )
