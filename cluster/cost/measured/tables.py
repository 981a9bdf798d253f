"""Show machines as they were predicted beside what was measured on them.

    Experience -> [tables] -> table on stderr, the last line of stdout

This module knows nothing of how a prediction is made.
"""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from fastformers.cluster.cost.machine_profile import MachineProfile
from fastformers.cluster.cost.measured.experience import Experience
from fastformers.cluster.pricing.hardware import CPU_RULES, GPU_RULES
from fastformers.formatting import format_count


def describe_experience(experience: Experience) -> dict[str, Any]:
    """What was measured, and the error factors that follow, as plain values."""
    return {
        "predicted_and_measured": [
            {
                "machine": name_machine(check.profile),
                "instance_type": check.profile.instance_type,
                "built_in_bundle": check.is_reference,
                "scaled_from": check.scaled_from,
                "predicted_tokens_per_s": check.predicted_tokens_per_s,
                "measured_tokens_per_s": check.measured_tokens_per_s,
                "measured_over_predicted_cost": check.ratio,
                "error_factor_by_judgment": check.judged_error,
                "is_rough": not check.teaches,
                "measured_at": check.profile.measured_at,
            }
            for check in experience.checks
        ],
        "error_factors": [
            {
                "rule": name,
                "by_judgment": rule[1],
                "learned": experience.error_of(rule[1], is_gpu=rule[0]),
                "machines": len(experience.ratios_of(rule)),
            }
            for name, rule in _named_rules()
        ],
    }


def show_checks(experience: Experience) -> list[Table | str]:
    """Table of the machines that were measured, and lines that explain it; empty without any."""
    if not experience.checks:
        return []
    return [_render_checks(experience), *_explain_checks(experience)]


def _render_checks(experience: Experience) -> Table:
    table = Table(
        title="Predicted and measured, tokens a second",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for name in ("machine", "bundle", "predicted", "measured", "cost", "judged", "date"):
        left = name in ("machine", "bundle")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "machine")
    for check in experience.checks:
        table.add_row(
            name_machine(check.profile),
            "built-in" if check.is_reference else "this",
            f"{check.predicted_tokens_per_s:,.0f}",
            f"{check.measured_tokens_per_s:,.0f}",
            f"x{check.ratio:.2f}{'' if check.teaches else '?'}",
            f"x/÷{check.judged_error:g}",
            check.profile.measured_at,
        )
    return table


def _explain_checks(experience: Experience) -> list[str]:
    lines = [
        "cost: measured over predicted; judged: the error factor of such a prediction before "
        "anything was measured"
    ]
    if any(not check.teaches for check in experience.checks):
        lines.append("?: measured on a busy machine, so that nothing is learned from it")
    learned = [
        f"{name} x/÷ {experience.error_of(rule[1], is_gpu=rule[0]):.2f} "
        f"(judged {rule[1]:g}, {format_count(len(ratios), 'machine')})"
        for name, rule in _named_rules()
        if (ratios := experience.ratios_of(rule))
    ]
    if learned:
        lines.append(f"error factors learned: {', '.join(learned)}")
    return lines


def name_machine(profile: MachineProfile) -> str:
    """A machine by its type, or by what it is where it has none."""
    if profile.gpu_name is not None:
        host = profile.instance_type
        return profile.gpu_name if host is None else f"{profile.gpu_name} of {host}"
    if profile.instance_type is not None:
        return profile.instance_type
    generation = profile.cost.cpu_generation or profile.cost.cpu_model
    return f"{format_count(profile.num_workers, 'core')} of {generation}"


def _named_rules() -> Sequence[tuple[str, tuple[bool, float]]]:
    return [
        *((name, (False, error)) for name, error in CPU_RULES.items()),
        *((name, (True, error)) for name, error in GPU_RULES.items()),
    ]
