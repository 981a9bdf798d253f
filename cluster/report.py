"""The bill: what a run did, how fast, where the time went and what it cost.

    receipts -> [report] -> report.json, a table, the last line of stdout

Wall seconds count from the start of the command, Ray's start included, because the machine is
paid for that time too. Ratios are 0-1 here and percentages only where they are printed.
"""

from typing import Any

from rich.table import Table

from cluster.predictions import PHASES, Receipt
from cluster.pricing import HourlyPrice, usd_of, usd_per_million
from cluster.run import RunResult, ScoreRun

# What `fastformers score` promises to print last; report.json holds more.
SUMMARY_KEYS = (
    "rows",
    "unique_rows",
    "tokens",
    "rows_per_second",
    "tokens_per_second",
    "padding_efficiency",
    "wall_s",
    "usd_per_hour",
    "usd_per_million",
    "usd_total",
    "price",
    "dead_letters",
    "resumed_shards",
    "shards",
    "retries",
    "num_actors",
    "phase_s",
    "peak_rss_bytes",
    "output",
)


def build_report(run: ScoreRun, result: RunResult, price: HourlyPrice) -> dict[str, Any]:
    """Everything that was measured, as plain values.

    Rates and cost are of this run: rows that earlier runs scored are counted in `rows` and
    `resumed_rows`, but neither sped up nor paid for.
    """
    receipts = result.receipts
    rows = sum(shard.num_rows for shard in result.shards)
    rows_now = sum(receipt.num_rows for receipt in receipts)
    tokens_now = sum(receipt.num_tokens for receipt in receipts)
    wall_s = result.wall_s
    usd_total = usd_of(wall_s, usd_per_hour=price.usd_per_hour, num_machines=result.num_machines)
    phase_s = _phases(result)
    return {
        "rows": rows,
        "unique_rows": sum(shard.num_unique for shard in result.shards),
        "tokens": sum(shard.num_tokens for shard in result.shards),
        "unique_tokens": sum(shard.num_unique_tokens for shard in result.shards),
        "rows_per_second": rows_now / wall_s,
        "tokens_per_second": tokens_now / wall_s,
        "padding_efficiency": _padding_efficiency([*result.resumed, *receipts]),
        "wall_s": wall_s,
        "setup_s": result.setup_s,
        "usd_per_hour": price.usd_per_hour,
        "price": price.label,
        "price_is_estimate": price.is_estimate,
        "usd_total": usd_total,
        "usd_per_million": usd_per_million(usd_total, rows_now) if rows_now else None,
        "dead_letters": result.dead_letters,
        "resumed_shards": len(result.resumed),
        "resumed_rows": sum(receipt.num_rows for receipt in result.resumed),
        "shards": len(result.shards),
        "retries": result.num_retries,
        "skipped_files": result.skipped_files,
        "num_actors": result.num_actors,
        "num_machines": result.num_machines,
        "cores": result.self_check,
        "phase_s": phase_s,
        "predicted_s": sum(receipt.predicted_s for receipt in receipts),
        "peak_rss_bytes": max((receipt.peak_rss_bytes for receipt in receipts), default=0),
        "actors": _by_actor(receipts),
        "timeline": [_timeline_entry(receipt) for receipt in receipts],
        "bundle": {
            "path": str(run.bundle.path),
            "precision": run.bundle.precision,
            "digest": run.bundle.digest,
            "max_batch_tokens": run.max_batch_tokens,
        },
        "output": str(run.output or run.shards),
    }


def render_bill(report: dict[str, Any]) -> Table:
    """The report as a table for people."""
    table = Table(title="Bill", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    rows, unique = report["rows"], report["unique_rows"]
    resumed = (
        f", {report['resumed_rows']:,} of them by earlier runs" if report["resumed_rows"] else ""
    )
    table.add_row("rows", f"{rows:,} ({unique:,} different texts scored{resumed})")
    efficiency = report["padding_efficiency"]
    padding = "" if efficiency is None else f" (padding efficiency {efficiency:.3f})"
    table.add_row("tokens", f"{report['tokens']:,}{padding}")
    table.add_row("dead letters", f"{report['dead_letters']:,}")
    table.add_row(
        "speed",
        f"{report['rows_per_second']:,.0f} rows/s, {report['tokens_per_second']:,.0f} tokens/s "
        f"in {report['wall_s']:.1f} s",
    )
    for name, actor in report["actors"].items():
        table.add_row(
            f"  {name}",
            f"{actor['rows_per_second']:,.0f} rows/s, {actor['tokens_per_second']:,.0f} tokens/s, "
            f"{actor['shards']} shards, peak {actor['peak_rss_bytes'] / 2**20:,.0f} MiB",
        )
    phases = report["phase_s"]
    total_s = sum(phases.values()) or 1.0
    table.add_row(
        "actor time", ", ".join(f"{name} {100 * s / total_s:.1f}%" for name, s in phases.items())
    )
    if report["retries"] or report["skipped_files"]:
        table.add_row(
            "trouble",
            f"{report['retries']} leases retried, {len(report['skipped_files'])} files skipped",
        )
    table.add_row("price", f"{report['usd_per_hour']:.4f} USD/h ({report['price']})")
    per_million = report["usd_per_million"]
    table.add_row("cost", f"{report['usd_total']:.6f} USD")
    if per_million is not None:
        table.add_row("per million rows", f"{per_million:.4f} USD")
    return table


def _padding_efficiency(receipts: list[Receipt]) -> float | None:
    """Share of the computed tokens that are text; None where nothing was computed."""
    computed = sum(receipt.num_computed_tokens for receipt in receipts)
    return sum(receipt.num_scored_tokens for receipt in receipts) / computed if computed else None


def _phases(result: RunResult) -> dict[str, float]:
    """Seconds of all actors by phase; idle is what remains of their time."""
    phase_s = dict.fromkeys(PHASES, 0.0)
    for phases in (result.slice_phase_s, *(receipt.phase_s for receipt in result.receipts)):
        for phase, seconds in phases.items():
            phase_s[phase] += seconds
    available_s = result.num_actors * (result.wall_s - result.setup_s)
    return {**phase_s, "idle": max(0.0, available_s - sum(phase_s.values()))}


def _by_actor(receipts: list[Receipt]) -> dict[str, dict[str, float]]:
    actors: dict[str, dict[str, float]] = {}
    for name in sorted({receipt.actor for receipt in receipts}):
        own = [receipt for receipt in receipts if receipt.actor == name]
        busy_s = sum(receipt.finished_at - receipt.started_at for receipt in own)
        actors[name] = {
            "shards": len(own),
            "rows": sum(receipt.num_rows for receipt in own),
            "rows_per_second": sum(receipt.num_rows for receipt in own) / busy_s,
            "tokens_per_second": sum(receipt.num_tokens for receipt in own) / busy_s,
            "busy_s": busy_s,
            "peak_rss_bytes": max(receipt.peak_rss_bytes for receipt in own),
        }
    return actors


def _timeline_entry(receipt: Receipt) -> dict[str, Any]:
    return {
        "shard": receipt.shard,
        "actor": receipt.actor,
        "attempt": receipt.attempt,
        "started_at": receipt.started_at,
        "finished_at": receipt.finished_at,
        "rows": receipt.num_rows,
        "tokens": receipt.num_tokens,
        "predicted_s": receipt.predicted_s,
        "infer_s": receipt.phase_s.get("infer", 0.0),
        "rss_bytes": receipt.rss_bytes,
    }
