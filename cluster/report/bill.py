"""Where the money of a run went: every core-second that was paid for, under one heading each.

    nodes, tallies of actors -> [bill] -> Bill -> RunReport -> report.json, table, page

A node is paid for from when it joined until it left. An actor's time is cut at the events that the
driver saw: its node joins and is ready, it is handed a job, it ends or dies, no job is left, the
node leaves. The phases that it measured inside a job (read, tokenize, infer, write) are taken out
of that job's time. So the headings add up to cores x seconds of all nodes, and their amounts, each
at the price of its node, to the total. A machine with GPUs is rented for them, so that all of its
price is that of the time of its actors on GPUs, as long as it has some: if they wait, that is where
the money went. Everything here is a pure function of plain values; it knows no prices of clouds,
only what the nodes of this run cost.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from fastformers.cluster.pricing.prices import usd_of
from fastformers.cluster.records.sessions import Spent
from fastformers.cluster.records.tally import ActorTally

# Headings in the order of the bill, with the meaning of each.
HEADINGS = {
    "compute": "running the model on the tokens of the texts",
    "second graph": "running a cascade's second graph on the texts that its first is unsure of",
    "padding": "running the model on padding",
    "audit": "scoring the rows drawn with the audit bundle, too, and loading it",
    "tokenizing": "texts to token ids",
    "reading": "the corpus and the prepared shards",
    "writing": "laying out shards and predictions",
    "start-up": "from the command, or a node's arrival, to the first job: Ray, planning, checks",
    "model load": "actors starting, opening the bundle, warming up",
    "hand-over": "committing files, and waiting for the driver between jobs",
    "waiting": "actors without a job: nothing was cut yet, or their node was about to leave",
    "comparing": "scoring some texts of shards that GPUs have scored on cores, too",
    "cut off": "jobs under way when a session was interrupted",
    "retries": "attempts lost with actor or node, restarts, the search for texts that kill",
    "idle tail": "actors with nothing left while the last ones finish",
    "closing": "listing dead letters, tidying up",
    "unused cores": "of the rented machines, owned by no actor",
}
_RUNNING = ("compute", "second graph", "padding")  # the model
# Significant digits of the total; the smallest amount on the bill follows from them.
_DIGITS, _SHOWN_DIGITS = 5, 2


@dataclass(frozen=True, kw_only=True)
class BillItem:
    """A line of the bill.

    Attributes:
        heading: One of `HEADINGS`.
        what: What the heading means, for people.
        core_s: Core-seconds.
        usd: Their price, rounded so that the lines add up to the total as printed.
    """

    heading: str
    what: str
    core_s: float
    usd: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the bundle's cost profile said of the shards scored, and what they took.

    Attributes:
        predicted_core_s, measured_core_s: Core-seconds of running the model.
        error: Predicted over measured, less 1; below 0 where the run was slower.
        shard_error: Mean distance of a shard from the prediction after all are scaled by their
            common factor: what lengths explain, whatever the speed of the machine.
    """

    predicted_core_s: float
    measured_core_s: float
    error: float
    shard_error: float


@dataclass(frozen=True, kw_only=True)
class Bill:
    """Where the money went.

    Attributes:
        items: Lines of the bill; every core-second that was paid for is in one of them.
        total_usd: Sum of the items, to the last digit.
        duplicates_saved_usd: What it would have cost to score equal texts again.
        prediction: The cost profile against what was measured; None where nothing was scored, or
            GPUs scored.
    """

    items: tuple[BillItem, ...]
    total_usd: float
    duplicates_saved_usd: float
    prediction: Prediction | None


@dataclass(frozen=True, kw_only=True)
class NodeTime:
    """A node that was paid for, and its actors.

    Attributes:
        joined_s, left_s: The time that it was paid for, in seconds since the run's start.
        ready_s: When its first job could be handed out.
        work_end_s: When the last job of the run was done.
        num_idle_cores: Cores of it that no actor owned.
        actors: What each of its actors did, None for one that did nothing, and its cores.
        usd_per_hour: Price of the node.
        free_s: Seconds of the time that it was paid for in which it cost nothing, because another
            node of the same machine was charged with its price.
        is_cut: Whether jobs were under way when it left, because the session ended.
        lost_work: Whether jobs were under way when it left, which other nodes did again.
    """

    joined_s: float
    left_s: float
    ready_s: float
    work_end_s: float
    num_idle_cores: int
    actors: tuple[tuple[ActorTally | None, int], ...]
    usd_per_hour: float
    free_s: float = 0.0
    is_cut: bool = False
    lost_work: bool = False

    @property
    def paid_s(self) -> float:
        """Seconds that were paid for."""
        return max(0.0, self.left_s - self.joined_s)

    @property
    def charged_s(self) -> float:
        """Seconds of these that it was charged for."""
        return max(0.0, self.paid_s - self.free_s)

    @property
    def usd(self) -> float:
        """What it cost."""
        return usd_of(self.charged_s, usd_per_hour=self.usd_per_hour)


def split(
    nodes: Sequence[NodeTime], *, padding_efficiency: float | None, second_share: float = 0.0
) -> dict[str, Spent]:
    """Split the price of a session over its core-seconds, each at the price of its node.

    Args:
        nodes: Nodes that were paid for.
        padding_efficiency: Tokens of text over tokens computed, or None if none were computed.
        second_share: Share of the seconds of running the model that a cascade's second graph took.

    Returns:
        Headings with any time. Core-seconds add up to the cores x time of all nodes, amounts to
        their prices.
    """
    core_s = dict.fromkeys(HEADINGS, 0.0)
    usd = dict.fromkeys(HEADINGS, 0.0)
    for node in nodes:
        own = _split_node(node)
        total_s = math.fsum(own.values())
        for heading, seconds in own.items():
            core_s[heading] += seconds
            usd[heading] += node.usd * seconds / total_s if total_s > 0 else 0.0
    for amounts in (core_s, usd):
        amounts["padding"] = amounts["compute"] * (1 - (padding_efficiency or 1.0))
        amounts["compute"] -= amounts["padding"]
        amounts["second graph"] = amounts["compute"] * second_share
        amounts["compute"] -= amounts["second graph"]
    return {
        heading: Spent(core_s=seconds, usd=usd[heading])
        for heading, seconds in core_s.items()
        if seconds > 0
    }


def itemize(sessions: Sequence[Mapping[str, Spent]], *, usd_total: float) -> list[BillItem]:
    """Add up what sessions spent, and round it.

    Args:
        sessions: What each of them spent by heading, see `split`.
        usd_total: Price of all of them.

    Returns:
        Lines of headings with any time; the amounts add up exactly to `round_total`.
    """
    core_s = dict.fromkeys(HEADINGS, 0.0)
    usd = dict.fromkeys(HEADINGS, 0.0)
    for session in sessions:
        for heading, spent in session.items():
            core_s[heading] += spent.core_s
            usd[heading] += spent.usd
    paid = {heading: usd[heading] for heading, seconds in core_s.items() if seconds > 0}
    return [
        BillItem(heading=heading, what=HEADINGS[heading], core_s=core_s[heading], usd=float(amount))
        for heading, amount in _share_out(usd_total, paid).items()
    ]


def round_for_people(items: Sequence[BillItem], *, usd_total: float) -> list[Decimal]:
    """The amounts of a bill with two digits of the total; they add up to the total as printed."""
    spent = {item.heading: item.usd for item in items}
    return list(_share_out(usd_total, spent, digits=_SHOWN_DIGITS).values())


def round_total(usd_total: float) -> Decimal:
    """The total to the smallest amount on its bill: five digits, and never finer than needed."""
    return Decimal(usd_total).quantize(_unit(usd_total))


def estimate_saved_usd(
    items: Sequence[BillItem], *, num_tokens: int, num_scored_tokens: int
) -> Decimal:
    """What it would have cost to run the model on equal texts again, at this run's rate.

    Args:
        items: The bill.
        num_tokens: Tokens of all good rows scored in this run.
        num_scored_tokens: Tokens of their different texts.
    """
    usd_of = {item.heading: Decimal(str(item.usd)) for item in items}
    compute = sum((usd_of.get(name, Decimal()) for name in _RUNNING), Decimal())
    if num_scored_tokens == 0:
        return Decimal()
    repeats = Decimal(num_tokens - num_scored_tokens) / num_scored_tokens
    return (compute * repeats).quantize(_unit(float(sum(usd_of.values()))))


def compare_prediction(
    predicted_s: float, measured_s: float, sample: Sequence[tuple[float, float]]
) -> Prediction | None:
    """Compare the cost profile's seconds with those of the model; None if either has none.

    Args:
        predicted_s: Core-seconds predicted for all shards.
        measured_s: Core-seconds of running the model on them.
        sample: Both for some of the shards, or all.
    """
    if predicted_s <= 0 or measured_s <= 0:
        return None
    factor = measured_s / predicted_s
    off_s = math.fsum(abs(measured - factor * predicted) for predicted, measured in sample)
    sampled_s = math.fsum(measured for _, measured in sample)
    return Prediction(
        predicted_core_s=predicted_s,
        measured_core_s=measured_s,
        error=predicted_s / measured_s - 1,
        shard_error=off_s / sampled_s if sampled_s > 0 else 0.0,
    )


def _split_node(node: NodeTime) -> dict[str, float]:
    """Core-seconds of a node by heading; they add up to its cores x the time it was paid for."""
    core_s = dict.fromkeys(HEADINGS, 0.0)
    if not node.actors and not node.num_idle_cores:
        core_s["start-up"] = node.paid_s  # it looked what there was to do, and found nothing
    core_s["unused cores"] = node.num_idle_cores * node.paid_s
    for actor, num_cores in node.actors:
        for heading, seconds in _split_actor(actor, node).items():
            core_s[heading] += num_cores * seconds
    return core_s


def _split_actor(actor: ActorTally | None, node: NodeTime) -> dict[str, float]:
    """Seconds of one actor by heading; they add up to the time that its node was paid for."""
    joined_s, left_s = node.joined_s, max(node.joined_s, node.left_s)
    ready_s = min(max(joined_s, node.ready_s), left_s)
    first_s = end_s = ready_s
    seconds = dict.fromkeys(HEADINGS, 0.0)
    if actor is not None and actor.first_start_s is not None:
        first_s = min(max(joined_s, actor.first_start_s), left_s)
        end_s = min(max(first_s, actor.end_s), left_s)
        ready_s = min(ready_s, first_s)
        worked_s = math.fsum(actor.seconds.values())
        scale = (end_s - first_s) / worked_s if worked_s > 0 else 0.0
        for heading, spent_s in actor.seconds.items():
            seconds[heading] = spent_s * scale
    work_end_s = min(max(end_s, node.work_end_s), left_s)
    seconds["start-up"] = ready_s - joined_s
    seconds["waiting"] += first_s - ready_s
    rest = "cut off" if node.is_cut else "idle tail"
    if left_s < node.work_end_s:
        rest = "retries" if node.lost_work else "waiting"
    seconds[rest] += work_end_s - end_s
    seconds["closing"] = left_s - work_end_s
    return seconds


def _share_out(
    usd_total: float, usd: Mapping[str, float], *, digits: int = _DIGITS
) -> dict[str, Decimal]:
    """Amounts rounded by largest remainder, so that they add up exactly."""
    total = math.fsum(usd.values())
    if not usd or total <= 0:
        return dict.fromkeys(usd, Decimal())
    unit = _unit(usd_total, digits)
    num_units = int(Decimal(usd_total).quantize(unit) / unit)
    exact = {heading: num_units * amount / total for heading, amount in usd.items()}
    units = {heading: int(amount) for heading, amount in exact.items()}
    by_remainder = sorted(exact, key=lambda heading: units[heading] - exact[heading])
    for heading in by_remainder[: num_units - sum(units.values())]:
        units[heading] += 1
    return {heading: number * unit for heading, number in units.items()}


def _unit(usd_total: float, digits: int = _DIGITS) -> Decimal:
    """The smallest amount on a bill: a fraction of the total, a cent at most."""
    if usd_total <= 0:
        return Decimal("0.01")
    return Decimal(1).scaleb(min(-2, math.floor(math.log10(usd_total)) + 1 - digits))
