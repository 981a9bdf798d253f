"""What a simulated run is made of: its work, machines, scheduling and store, and what came out.

    measured runs, driver load -> [cluster_model] -> simulation -> simulated points

Everything is seconds and counts, measured wherever it can be; the defaults stand for things that
cost nothing and never fail. This module computes nothing and knows nothing of Ray or prices.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Work:
    """The shards of a job.

    Attributes:
        predicted_s: Predicted seconds of each shard, in the order in which they are handed out.
        ratios: Sample of measured seconds over predicted ones; each attempt draws one of them.
        counts: Shards that each entry of `predicted_s` stands for, which one actor does one after
            another: it draws the mean of as many ratios, and loses only the shard that it is at.
            None for one each.
        num_slices: Slices that have to be cut first; 0 where the shards are there already. Shards
            come out of them in order.
        slice_s: Seconds to cut a slice.
    """

    predicted_s: NDArray[np.float64]
    ratios: NDArray[np.float64]
    counts: NDArray[np.int64] | None = None
    num_slices: int = 0
    slice_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Nodes and their actors.

    Attributes:
        num_actors: Actors over all nodes.
        actors_per_node: Actors of a node; the last node may have fewer.
        node_startup_s: Sample of seconds until a node can be asked.
        actor_startup_s: Sample of seconds from then until an actor works.
        node_sigma: Spread of the speed of nodes around their mean, as the sigma of a lognormal; all
            together are as fast as without it.
        slow_share, slow_factor: Share of actors that are slow, and by which factor they are.
        interruptions_per_hour: Interruptions of each node but the first, which is the head.
        failures_per_hour: Deaths of each actor while it works.
        noticed_after_s: Seconds until the loss of a node is noticed.
    """

    num_actors: int
    actors_per_node: int
    node_startup_s: tuple[float, ...] = (0.0,)
    actor_startup_s: tuple[float, ...] = (0.0,)
    node_sigma: float = 0.0
    slow_share: float = 0.0
    slow_factor: float = 1.0
    interruptions_per_hour: float = 0.0
    failures_per_hour: float = 0.0
    noticed_after_s: float = 0.0

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return -(-self.num_actors // self.actors_per_node)

    def actors_of(self, node: int) -> range:
        """Numbers of a node's actors."""
        first = node * self.actors_per_node
        return range(first, min(first + self.actors_per_node, self.num_actors))


@dataclass(frozen=True, kw_only=True)
class Scheduling:
    """What the driver and the supervisors cost, and how they hand out work.

    Attributes:
        lease_s: CPU seconds of the driver for a call to a node, whatever is in it.
        shard_s: CPU seconds of the driver for a shard: handing it out and taking its receipt.
        supervisor_shard_s: CPU seconds of a node's supervisor for a shard.
        latency_s: Seconds that a message takes between driver and node.
        report_within_s: Seconds that an outcome waits for others before it is reported, where the
            node has enough to do.
        wait_s: Seconds after which a node answers in any case; infinite for never.
        jobs_in_hand: Shards that an actor holds, the one that computes included.
        ahead_s: Seconds of work that a node is leased, where that is more than its actors hold.
        max_leased: Shards that a node is leased at most, for each actor.
        late_factor: A shard is given to a second actor, if one is idle, when it takes this many
            times what the others' pace predicts.
    """

    lease_s: float = 0.0
    shard_s: float = 0.0
    supervisor_shard_s: float = 0.0
    latency_s: float = 0.0
    report_within_s: float = 0.0
    wait_s: float = math.inf
    jobs_in_hand: int = 2
    ahead_s: float = 0.0
    max_leased: int = 64
    late_factor: float = math.inf

    def num_wanted(self, num_actors: int, shard_s: float) -> int:
        """Shards that a node is leased while plenty wait.

        Args:
            num_actors: Actors of the node.
            shard_s: Seconds of a shard on one of them.
        """
        spare = max(1, num_actors // 4) if self.jobs_in_hand > 1 else 0
        enough = round(num_actors * self.ahead_s / max(shard_s, 1e-9))
        least = num_actors * self.jobs_in_hand + spare
        return min(max(least, enough), num_actors * max(self.max_leased, self.jobs_in_hand + 1))

    def answer_below(self, num_actors: int, num_wanted: int) -> int:
        """Shards in a node's hands below which it answers at once."""
        return max(num_actors, num_wanted // 2, min(2 * num_actors + 1, num_wanted))


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where shards are read from, and predictions written to.

    Attributes:
        latency_s: Seconds until a shard is there, once it was asked for.
        requests_per_shard: Requests of a shard, those of its predictions included.
        requests_per_second: Requests that the store takes.
    """

    latency_s: float = 0.0
    requests_per_shard: float = 3.0
    requests_per_second: float = math.inf


@dataclass(frozen=True, kw_only=True)
class SimulatedRun:
    """What came out of a simulated run.

    Attributes:
        wall_s: Seconds from the start until the last shard was done.
        up_s: Seconds until the last of the actors that worked began its first shard.
        work_s: Predicted seconds of all shards.
        window_work_s: Predicted seconds of what was done after `up_s`.
        num_shards: Shards that were done, or bundles of them where the work has `counts`.
        interruptions: Nodes that were taken away.
        lost_s: Actor-seconds of work that was lost with nodes and actors.
        driver_busy: Share of the time that the driver computed.
        num_calls: Calls that the driver made to nodes.
    """

    wall_s: float
    up_s: float
    work_s: float
    window_work_s: float
    num_shards: int
    interruptions: int
    lost_s: float
    driver_busy: float
    num_calls: int


def work_after(
    starts_S: NDArray[np.float64],
    ends_S: NDArray[np.float64],
    work_S: NDArray[np.float64],
    moment_s: float,
) -> float:
    """Work done after a moment, each shard's spread evenly over the time that it took.

    Args:
        starts_S, ends_S: When each of S shards began and ended.
        work_S: Work of each.
        moment_s: Moment on the same clock.
    """
    took_S = np.maximum(ends_S - starts_S, 1e-12)
    share_S = np.clip((ends_S - moment_s) / took_S, 0.0, 1.0)
    return float(np.sum(share_S * work_S))
