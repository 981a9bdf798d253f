"""Show plans to people, as a table, and to programs, as JSON.

    plans -> [plan_tables] -> table on stderr, part of the last line of stdout

Time is shown for half of all runs and for the confidence that was asked for, with what is then left
of deadline or budget. This module knows nothing of how plans are made.
"""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from fastformers.cluster.cost.planning.candidates import MEASURED_ERROR
from fastformers.cluster.cost.planning.cluster_plan import ClusterPlan
from fastformers.cluster.cost.planning.offers import PlanSettings
from fastformers.cluster.cost.planning.outcome import NUM_RUNS
from fastformers.cluster.formatting import format_short_duration


def describe_plans(plans: Sequence[ClusterPlan], settings: PlanSettings) -> dict[str, Any]:
    """The best cluster, the next best, and what was assumed, as plain values."""
    return {
        **_plan_json(plans[0], settings),
        "alternatives": [_plan_json(plan, settings) for plan in plans[1:]],
        "spot": settings.spot,
        "deadline_s": settings.deadline_s,
        "budget_usd": settings.budget_usd,
        "confidence": settings.confidence,
        "max_instances": settings.max_instances,
        "startup_s": settings.startup_s,
        "interruptions_per_hour": settings.interruptions_per_hour if settings.spot else 0.0,
        "simulated_runs": NUM_RUNS,
        "seed": settings.seed,
    }


def render_plans(plans: Sequence[ClusterPlan], settings: PlanSettings) -> Table:
    """Table of the best cluster, and of those of the next best types."""
    table = Table(title="Plan", title_justify="left", box=None, padding=(0, 1, 0, 0))
    columns = ["cluster", "time", f"{100 * settings.confidence:g}%", "to spare", "holds", "USD"]
    for name in [*columns, "start", "end", *(["lost"] if settings.spot else [])]:
        left = name == "cluster"
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "to spare")
    for plan in plans:
        interrupted = f"{plan.interruption_usd:,.2f} ({plan.interruptions:.1f})"
        table.add_row(
            plan.name,
            format_short_duration(plan.wall_s),
            format_short_duration(plan.confident_wall_s),
            _to_spare(plan, settings),
            f"{100 * plan.hold_chance:.1f}%",
            f"{plan.usd_total:,.2f}",
            f"{plan.startup_usd:,.2f}",
            f"{plan.tail_usd:,.2f}",
            *([interrupted] if settings.spot else []),
        )
    return table


def explain_plans(plans: Sequence[ClusterPlan], settings: PlanSettings) -> list[str]:
    """Lines that say what the plan assumes, and how to score on it if it has GPUs."""
    best, percent = plans[0], f"{100 * settings.confidence:g}%"
    asked = " and ".join(
        name
        for name, value in (("deadline", settings.deadline_s), ("budget", settings.budget_usd))
        if value is not None
    )
    error = max(best.offer.error_factor, MEASURED_ERROR)
    origin = "measured" if best.offer.is_measured else "not measured"
    spot = (
        f"; {settings.interruptions_per_hour:g} interruptions an hour of each spot machine "
        "(--interruptions-per-hour), the head on demand; lost: USD and number of interruptions"
        if settings.spot
        else ""
    )
    lines = [
        f"time: of half of all runs; {percent}: of {percent} of them (--confidence), and what that "
        f"leaves of the {asked}; holds: runs that keep it; USD: expected",
        f"simulated: {NUM_RUNS} runs of each candidate (--seed). The pace of "
        f"{best.offer.instance_type} was {origin}: right up to x/÷ {error:.3g} in 95% of cases, "
        f"the work that was sampled up to {100 * best.offer.sample_error:.1f}%",
        f"assumed: {settings.startup_s:g} s to start a machine (--startup-s){spot}",
    ]
    if best.offer.uses_gpus:
        who = "cores tokenize" if best.num_helpers else "its own cores tokenize"
        lines.append(f"score with --device cuda: the GPUs score, and {who}")
    return lines


def _to_spare(plan: ClusterPlan, settings: PlanSettings) -> str:
    """What is left of deadline and budget if all goes as badly as the confidence lets expect."""
    parts = []
    if settings.deadline_s is not None:
        parts.append(format_short_duration(settings.deadline_s - plan.confident_wall_s))
    if settings.budget_usd is not None:
        left_usd = settings.budget_usd - plan.confident_usd
        parts.append(f"{left_usd:,.{0 if left_usd >= 100 else 2}f} USD")
    return ", ".join(parts)


def _plan_json(plan: ClusterPlan, settings: PlanSettings) -> dict[str, Any]:
    deadline_s, budget_usd = settings.deadline_s, settings.budget_usd
    return {
        "instance_type": plan.offer.instance_type,
        "num_instances": plan.num_instances,
        "helper_type": None
        if plan.offer.helper is None or not plan.num_helpers
        else plan.offer.helper.instance_type,
        "num_helpers": plan.num_helpers,
        "device": "cuda" if plan.offer.uses_gpus else "cpu",
        "error_factor": plan.offer.error_factor,
        "sample_error": plan.offer.sample_error,
        "actors_per_instance": plan.offer.num_actors,
        "wall_s": plan.wall_s,
        "confident_wall_s": plan.confident_wall_s,
        "margin_s": None if deadline_s is None else deadline_s - plan.confident_wall_s,
        "usd_total": plan.usd_total,
        "confident_usd": plan.confident_usd,
        "margin_usd": None if budget_usd is None else budget_usd - plan.confident_usd,
        "hold_chance": plan.hold_chance,
        "startup_usd": plan.startup_usd,
        "tail_usd": plan.tail_usd,
        "tail_s": plan.tail_s,
        "interruptions": plan.interruptions,
        "interruption_usd": plan.interruption_usd,
        "shard_s": plan.offer.shard_s,
    }
