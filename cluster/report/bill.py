"""Where the money of a run went: every core-second that was paid for, under one heading each.

    attempts -> [bill] -> RunReport -> report.json, table, page

An actor's time is cut at the events that the driver saw: it starts, it is handed a job, it ends or
dies, no job is left. The phases that it measured inside a job (read, tokenize, infer, write) are
taken out of that job's time. So the headings add up to cores x wall time, and their amounts to the
total. Everything here is a pure function of plain values; it knows no prices of clouds, only what
this run cost.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from cluster.report.run_report import BillItem, Prediction
from cluster.shards.receipts import Attempt

# Headings in the order of the bill, with the meaning of each.
HEADINGS = {
    "compute": "running the model on the tokens of the texts",
    "padding": "running the model on padding",
    "tokenizing": "texts to token ids",
    "reading": "the corpus and the prepared shards",
    "writing": "laying out shards and predictions",
    "start-up": "from the command to the first job: Ray, planning, the search for a split",
    "model load": "actors starting, opening the bundle, warming up",
    "hand-over": "committing files, and waiting for the driver between jobs",
    "waiting": "actors without a job because nothing was cut yet",
    "retries": "attempts lost with their actor, its restart, the search for texts that kill",
    "idle tail": "actors with nothing left while the last ones finish",
    "closing": "listing dead letters, tidying up",
    "unused cores": "of the rented machines, owned by no actor",
}
_HEADING_OF_PHASE = {
    "read": "reading",
    "tokenize": "tokenizing",
    "infer": "compute",
    "write": "writing",
}
_DIGITS = 5  # significant digits of the total; the smallest amount on the bill follows from them


@dataclass(frozen=True, kw_only=True)
class RunTimes:
    """When a run did what, in seconds since its start.

    Attributes:
        setup_s: When the first job could be handed out.
        work_end_s: When the last job was done.
        wall_s: When everything was done.
    """

    setup_s: float
    work_end_s: float
    wall_s: float


def itemize(
    attempts: Iterable[Attempt],
    times: RunTimes,
    *,
    actor_cores: Mapping[str, int],
    num_idle_cores: int,
    padding_efficiency: float | None,
    usd_total: float,
) -> list[BillItem]:
    """Split the price of a run over its core-seconds.

    Args:
        attempts: Attempts of all actors.
        times: When the run did what.
        actor_cores: Cores of each actor; empty if there was nothing left to do.
        num_idle_cores: Cores of the machines that no actor owned.
        padding_efficiency: Tokens of text over tokens computed, or None if none were computed.
        usd_total: Price of all machines for the whole time.

    Returns:
        Lines of headings with any time. Core-seconds add up to cores x wall time, amounts exactly
        to `round_total(usd_total)`.
    """
    core_s = dict.fromkeys(HEADINGS, 0.0)
    by_actor: dict[str, list[Attempt]] = {actor: [] for actor in actor_cores}
    for attempt in attempts:
        by_actor[attempt.actor].append(attempt)
    for actor, own in by_actor.items():
        own.sort(key=lambda attempt: attempt.start_s)
        for heading, seconds in _split_actor(own, times).items():
            core_s[heading] += seconds * actor_cores[actor]
    core_s["padding"] = core_s["compute"] * (1 - (padding_efficiency or 1.0))
    core_s["compute"] -= core_s["padding"]
    core_s["unused cores"] = num_idle_cores * times.wall_s
    if not actor_cores:
        core_s["start-up"] = times.wall_s
    spent = {heading: seconds for heading, seconds in core_s.items() if seconds > 0}
    return [
        BillItem(heading=heading, what=HEADINGS[heading], core_s=core_s[heading], usd=float(usd))
        for heading, usd in _share_out(usd_total, spent).items()
    ]


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
    compute = usd_of.get("compute", Decimal()) + usd_of.get("padding", Decimal())
    if num_scored_tokens == 0:
        return Decimal()
    repeats = Decimal(num_tokens - num_scored_tokens) / num_scored_tokens
    return (compute * repeats).quantize(_unit(float(sum(usd_of.values()))))


def compare_prediction(
    predicted_s: Sequence[float], measured_s: Sequence[float]
) -> Prediction | None:
    """Compare the cost profile's seconds with those of the model; None if either has none.

    Args:
        predicted_s: Core-seconds predicted for each shard.
        measured_s: Core-seconds of running the model on it.
    """
    predicted, measured = math.fsum(predicted_s), math.fsum(measured_s)
    if predicted <= 0 or measured <= 0:
        return None
    factor = measured / predicted
    off = math.fsum(abs(m - factor * p) for p, m in zip(predicted_s, measured_s, strict=True))
    return Prediction(
        predicted_core_s=predicted,
        measured_core_s=measured,
        error=predicted / measured - 1,
        shard_error=off / measured,
    )


def _split_actor(attempts: Sequence[Attempt], times: RunTimes) -> dict[str, float]:
    """Seconds of one actor by heading; they add up to the wall time."""
    seconds = dict.fromkeys(HEADINGS, 0.0)
    seconds["start-up"] = times.setup_s
    seconds["closing"] = times.wall_s - times.work_end_s
    now = times.setup_s
    loads, reload = True, False  # its first job waits for the model
    for attempt in attempts:
        start_s, end_s = max(now, attempt.start_s), max(now, attempt.end_s)
        seconds["waiting"] += start_s - now
        held_s = end_s - start_s
        if attempt.is_lost or attempt.job == "search":
            seconds["retries"] += held_s
        else:
            measured_s = math.fsum(attempt.phase_s.values())
            scale = min(1.0, held_s / measured_s) if measured_s > 0 else 0.0
            for phase, phase_s in attempt.phase_s.items():
                seconds[_HEADING_OF_PHASE[phase]] += phase_s * scale
            rest = "retries" if reload else "model load" if loads else "hand-over"
            seconds[rest] += held_s - measured_s * scale
        loads, reload, now = False, attempt.is_lost, end_s
    seconds["idle tail"] = times.work_end_s - now
    return seconds


def _share_out(usd_total: float, core_s: Mapping[str, float]) -> dict[str, Decimal]:
    """Amounts in proportion to core-seconds, by largest remainder, so that they add up exactly."""
    if not core_s:
        return {}
    unit = _unit(usd_total)
    num_units = int(round_total(usd_total) / unit)
    total_s = math.fsum(core_s.values())
    exact = {heading: num_units * seconds / total_s for heading, seconds in core_s.items()}
    units = {heading: int(amount) for heading, amount in exact.items()}
    by_remainder = sorted(exact, key=lambda heading: units[heading] - exact[heading])
    for heading in by_remainder[: num_units - sum(units.values())]:
        units[heading] += 1
    return {heading: number * unit for heading, number in units.items()}


def _unit(usd_total: float) -> Decimal:
    """The smallest amount on a bill: a fraction of the total, a cent at most."""
    if usd_total <= 0:
        return Decimal("0.01")
    return Decimal(1).scaleb(min(-2, math.floor(math.log10(usd_total)) + 1 - _DIGITS))
