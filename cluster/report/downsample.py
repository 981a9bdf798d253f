"""What the page plots, cut down so that a million shards make as small a page as ten.

    RunReport -> [downsample] -> plots -> report.html

Points are put into bins, actors into groups, and of many actors some are picked. These are pure
functions of the report's plain values; they know nothing of drawing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastformers.cluster.report.over_time import TimelineEntry, TokensOverTime

MAX_GROUPS, MAX_LANES, MAX_SPANS = 6, 20, 1000
# Kinds of work, the most urgent first: where a cell of the timeline holds several, that one shows.
KINDS = ("lost", "search", "load", "prepare", "compare", "score")


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of an actor's time.

    Attributes:
        start_s, end_s: Seconds since the run's start.
        kind: One of `KINDS`.
    """

    start_s: float
    end_s: float
    kind: str


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One actor's row of the timeline.

    Attributes:
        name: Short name of the actor.
        spans: What it did, in order.
    """

    name: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Tokens per second over the run.

    Attributes:
        edges_s: Bounds of the bins, in seconds since the run's start.
        groups: Tokens per second of each bin, by actor or group of actors.
    """

    edges_s: NDArray[np.float64]
    groups: dict[str, NDArray[np.float64]]


def shorten_names(actors: Sequence[str]) -> dict[str, str]:
    """A short name for each actor: its CPUs if all are of one host, else the end of its name."""
    hosts = {actor.rpartition(":")[0] for actor in actors}
    if len(hosts) == 1:
        return {actor: f"CPU {actor.rpartition(':')[2]}" for actor in actors}
    return {actor: actor if len(actor) <= 16 else f"…{actor[-15:]}" for actor in actors}


def rate_tokens(tokens: TokensOverTime, wall_s: float) -> Throughput:
    """Tokens per second in each bin; the last one ends with the run.

    Args:
        tokens: Tokens over time, as the report has them.
        wall_s: Length of the run.
    """
    num_bins = max((len(bins) for bins in tokens.groups.values()), default=0)
    starts_s = [place * tokens.bin_s for place in range(num_bins + 1)]
    edges_s = np.array([*(start for start in starts_s if start < wall_s), wall_s], np.float64)
    groups = {}
    for name, bins in tokens.groups.items():
        amounts = np.zeros(len(edges_s) - 1)
        for place, amount in enumerate(bins):
            amounts[min(place, len(amounts) - 1)] += amount
        groups[name] = amounts / np.diff(edges_s)
    return Throughput(edges_s=edges_s, groups=groups)


def plan_lanes(
    timeline: Sequence[TimelineEntry], wall_s: float, *, is_sample: bool = False
) -> list[Lane]:
    """Rows of the timeline: of many actors, some that died, and others spread over when they ended.

    Args:
        timeline: Attempts, as the report lists them.
        wall_s: Length of the run.
        is_sample: Whether attempts were left out. Then of some actors only those that were lost
            are there, and these actors are not picked.
    """
    if is_sample:
        whole = {entry.actor for entry in timeline if not entry.lost}
        timeline = [entry for entry in timeline if entry.actor in whole]
    spans: dict[str, list[Span]] = {}
    for entry, is_first in _walk(timeline):
        spans.setdefault(entry.actor, []).extend(_cut(entry, is_first))
    picked = sorted(spans, key=lambda actor: (spans[actor][-1].end_s, actor))
    if len(picked) > MAX_LANES:
        died = [actor for actor in picked if any(s.kind == "lost" for s in spans[actor])]
        died = died[: MAX_LANES // 2]
        others = [actor for actor in picked if actor not in died]
        places = np.linspace(0, len(others) - 1, MAX_LANES - len(died)).round().astype(int)
        picked = [*died, *(others[place] for place in places)]
    names = shorten_names(sorted(spans))
    if sum(len(spans[actor]) for actor in picked) > MAX_SPANS:
        num_cells = MAX_SPANS // len(picked)
        spans = {actor: _merge(spans[actor], wall_s, num_cells) for actor in picked}
    return [Lane(name=names[actor], spans=tuple(spans[actor])) for actor in sorted(picked)]


def pick_frontier(qualities: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Indices of the candidates that no other beats in both, from the cheapest to the best."""
    order = sorted(range(len(costs)), key=lambda place: (costs[place], -qualities[place]))
    best = -math.inf
    frontier = []
    for place in order:
        if qualities[place] > best:
            best = qualities[place]
            frontier.append(place)
    return frontier


def _walk(timeline: Sequence[TimelineEntry]) -> list[tuple[TimelineEntry, bool]]:
    """Attempts by start, and whether each is the first job of an actor's process."""
    fresh: dict[str, bool] = {}
    walked = []
    for entry in sorted(timeline, key=lambda entry: entry.start_s):
        walked.append((entry, fresh.get(entry.actor, True)))
        fresh[entry.actor] = entry.lost
    return walked


def _cut(entry: TimelineEntry, is_first: bool) -> list[Span]:
    """An attempt as spans: the actor's start is cut off from its first job."""
    start_s, end_s = entry.start_s, entry.end_s
    if entry.lost:
        return [Span(start_s=start_s, end_s=end_s, kind="lost")]
    load_s = end_s - start_s - entry.busy_s if is_first and entry.busy_s > 0 else 0.0
    job = Span(start_s=start_s + max(0.0, load_s), end_s=end_s, kind=entry.job)
    if load_s <= 0:
        return [job]
    return [Span(start_s=start_s, end_s=job.start_s, kind="load"), job]


def _merge(spans: Sequence[Span], wall_s: float, num_cells: int) -> list[Span]:
    """One kind for each cell of the run, the most urgent of those in it; equal neighbors join."""
    cells: list[str | None] = [None] * num_cells
    for span in spans:
        first = min(num_cells - 1, int(span.start_s / wall_s * num_cells))
        last = min(num_cells - 1, int(span.end_s / wall_s * num_cells))
        for cell in range(first, last + 1):
            held = cells[cell]
            if held is None or KINDS.index(span.kind) < KINDS.index(held):
                cells[cell] = span.kind
    merged: list[Span] = []
    for cell, kind in enumerate(cells):
        start_s, end_s = cell * wall_s / num_cells, (cell + 1) * wall_s / num_cells
        if kind is None:
            continue
        if merged and merged[-1].kind == kind and math.isclose(merged[-1].end_s, start_s):
            merged[-1] = Span(start_s=merged[-1].start_s, end_s=end_s, kind=kind)
        else:
            merged.append(Span(start_s=start_s, end_s=end_s, kind=kind))
    return merged


def group_actors(actors: Sequence[str]) -> dict[str, str]:
    """A group for each actor: itself, or, where there are many, a few neighbors together."""
    names = shorten_names(actors)
    if len(actors) <= MAX_GROUPS:
        return names
    group_of: dict[str, str] = {}
    for part in np.array_split(np.array(actors, object), MAX_GROUPS):
        label = f"{names[part[0]]} and {len(part) - 1} more" if len(part) > 1 else names[part[0]]
        group_of.update(dict.fromkeys(part.tolist(), label))
    return group_of
