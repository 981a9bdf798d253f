"""The report as one page: numbers, plots, and beside each plot its table.

    report.json -> [page] -> report.html

One file that opens anywhere: nothing is loaded, nothing runs, and colors follow the reader's light
or dark theme. What is plotted is bounded (`cluster.series`), so the page stays small. The plots
need the extra `report`; this module does not know how they are drawn.
"""

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from cluster.formatting import format_count, format_seconds, format_time, format_usd
from cluster.report import plots
from cluster.report.bill import TypeCost
from cluster.report.downsample import bin_throughput, pick_frontier, plan_lanes
from cluster.report.energy import HOW_TO
from cluster.report.plots import FrontierPoint
from cluster.report.tables import describe_energy

PAGE_FILE = "report.html"
_TEMPLATE = Path(__file__).with_name("page.html")
_MAX_TABLE_ROWS = 20


def can_draw() -> bool:
    """Whether the extra `report` is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def render_page(report: Mapping[str, Any]) -> str:
    """A whole page of one run.

    Args:
        report: As `report.build_report` made it, or as it was read from report.json.
    """
    title = f"{report['rows']:,} texts, {format_usd(report['usd_total'])}"
    sections = [_header(report), _bill(report)]
    if report["other_types"]:
        sections.append(_types(report))
    if report["lengths"]:
        sections.append(_lengths(report))
    if report["timeline"]:
        sections += [_throughput(report), _timeline(report)]
    return _fill(title, [*sections, _footer(report)])


def render_search_page(candidates: Sequence[FrontierPoint], *, heading: str, note: str) -> str:
    """A page of the bundles that a recipe search made: quality over cost.

    Args:
        candidates: At least one.
        heading: What was searched.
        note: Under the heading: where prices are from.
    """
    title = f'<h1>{escape(heading)}</h1>\n<p class="note">{escape(note)}</p>'
    return _fill(heading, [title, _frontier(candidates)])


def _frontier(candidates: Sequence[FrontierPoint]) -> str:
    """Plot and table of the candidates; those that none beats in both quality and USD stand out."""
    usd = [candidate.usd for candidate in candidates]
    best = set(pick_frontier([candidate.quality for candidate in candidates], usd))
    order = sorted(range(len(usd)), key=lambda place: (usd[place], -candidates[place].quality))
    rows = [
        [
            candidates[place].name,
            f"{100 * candidates[place].quality:.2f}",
            f"{candidates[place].seconds:,.0f}",
            format_usd(usd[place]),
            candidates[place].verdict or ("best" if place in best else "beaten"),
        ]
        for place in order
    ]
    return _figure(
        "Quality over cost",
        "Up and left is better. The line joins the candidates that no other beats in both.",
        plots.plot_frontier(candidates),
        _table(["candidate", "quality, %", "core-seconds a million", "USD a million", ""], rows),
    )


def _header(report: Mapping[str, Any]) -> str:
    per_million = report["usd_per_million"]
    estimate = ", an estimate" if report["price_is_estimate"] else ""
    efficiency = report["padding_efficiency"]
    cards = [
        ("Rows", f"{report['rows']:,}", "", f"{report['unique_rows']:,} different"),
        (
            "Speed",
            f"{report['rows_per_second']:,.0f}",
            "rows/s",
            f"{report['tokens_per_second']:,.0f} tokens/s",
        ),
        (
            "A million rows",
            *(("none", "") if per_million is None else format_usd(per_million).split()),
            "at this run's rate",
        ),
        (
            "Total",
            *format_usd(report["usd_total"]).split(),
            f"{report['usd_per_hour']:g} USD/h a machine{estimate}",
        ),
        (
            "Time",
            format_seconds(report["wall_s"]),
            "",
            f"{format_count(report['num_actors'], 'actor')}, "
            f"{format_count(report['num_machines'], 'machine')}",
        ),
        (
            "Tokens",
            f"{report['tokens']:,}",
            "",
            "" if efficiency is None else f"{100 * (1 - efficiency):.1f}% padding",
        ),
    ]
    items = "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)} <b>{unit}</b>"
        f"<small>{escape(note)}</small></dd></div>"
        for name, value, unit, note in cards
    )
    started = datetime.fromisoformat(report["started_at"])
    heading = f"{report['rows']:,} texts scored for {format_usd(report['usd_total'])}"
    return (
        f"<h1>{escape(heading)}</h1>\n"
        f'<p class="note">{started:%Y-%m-%d %H:%M} UTC · {escape(report["output"])}</p>\n'
        f'<dl class="cards">\n{items}\n</dl>\n{_trouble(report)}'
    )


def _trouble(report: Mapping[str, Any]) -> str:
    notes = []
    if report["dead_letters"]:
        notes.append(f"{report['dead_letters']:,} rows have no prediction (dead_letters.parquet).")
    if report["retries"]:
        notes.append(f"{format_count(report['retries'], 'lease')} lost with an actor, and retried.")
    if report["skipped_files"]:
        notes.append(f"{format_count(len(report['skipped_files']), 'unreadable file')} left out.")
    earlier = report["earlier"]
    if earlier is not None:
        first, last = (format_time(earlier[key]) for key in ("started_at", "finished_at"))
        notes.append(
            f"{earlier['rows']:,} rows in {format_count(earlier['shards'], 'shard')} were scored "
            f"by earlier runs, {first} to {last} UTC, in {format_seconds(earlier['actor_s'])} of "
            "their actors; rates and money on this page are of this run alone."
        )
    lines = "".join(f"<p>{escape(note)}</p>\n" for note in notes)
    return f'<div class="warn note">\n{lines}</div>' if notes else ""


def _bill(report: Mapping[str, Any]) -> str:
    bill = report["bill"]
    total_s = sum(item["core_s"] for item in bill["items"]) or 1.0
    places = _places(item["usd"] for item in [*bill["items"], {"usd": bill["total_usd"]}])
    rows = "\n".join(
        f'<tr><th scope="row">{escape(item["heading"])}'
        f'<span class="what">{escape(item["what"])}</span></th>'
        f'<td class="time">{escape(format_seconds(item["core_s"]))}</td>'
        f'<td class="usd">{item["usd"]:,.{places}f}</td>'
        f'<td class="share">{share:.1f}%'
        f'<span class="bar"><span style="width:{share:.1f}%"></span></span></td></tr>'
        for item in bill["items"]
        for share in [100 * item["core_s"] / total_s]
    )
    saved = bill["duplicates_saved_usd"]
    return f"""<h2>The bill</h2>
<p class="note">Every core-second that was paid for, under one heading each.
Price: {escape(report["price"])}.</p>
<table class="bill">
<thead><tr><th scope="col">for</th><th scope="col" class="time">core time</th>
<th scope="col">USD</th><th scope="col">share</th></tr></thead>
<tbody>
{rows}
</tbody>
<tfoot>
<tr><th scope="row">total</th><td class="time">{escape(format_seconds(total_s))}</td>
<td class="usd">{bill["total_usd"]:,.{places}f}</td><td></td></tr>
<tr><th scope="row">not spent: equal texts scored once</th><td class="time"></td>
<td class="usd">{-saved if saved else 0:,.{places}f}</td><td></td></tr>
</tfoot>
</table>
{_prediction(report)}
{_energy(report)}"""


def _prediction(report: Mapping[str, Any]) -> str:
    prediction = report["bill"]["prediction"]
    if prediction is None:
        return ""
    predicted, measured = (
        format_seconds(prediction[key]) for key in ("predicted_core_s", "measured_core_s")
    )
    text = (
        f"Compute: {predicted} of a core predicted by the bundle's cost profile, {measured} "
        f"measured; the prediction is {100 * prediction['error']:+.1f}% off. Once the machine's "
        f"speed is set right, a shard is {100 * prediction['shard_error']:.1f}% off on average. "
        f"The profile was measured on {report['bundle']['profile_cpu']}, and this run's driver is "
        f"on {report['driver_cpu']}."
    )
    return f"<p><b>Predicted against actual.</b> {escape(text, quote=False)}</p>"


def _energy(report: Mapping[str, Any]) -> str:
    energy = report["energy"]
    text = f"not measured; {HOW_TO}" if energy is None else describe_energy(energy)
    return f"<p><b>Energy.</b> {escape(text[0].upper() + text[1:])}.</p>"


def _types(report: Mapping[str, Any]) -> str:
    costs = [TypeCost(**cost) for cost in report["other_types"]]
    rows = [[cost.instance_type, format_usd(cost.usd), cost.basis] for cost in costs]
    rows.insert(0, ["this run", format_usd(report["usd_total"]), "measured"])
    return _figure(
        "The same run elsewhere",
        "Cheapest other instance types; hatched where scaled from another type, not measured.",
        plots.plot_type_costs(costs, own_usd=report["usd_total"]),
        _table(["instance type", "USD", "basis"], rows),
    )


def _lengths(report: Mapping[str, Any]) -> str:
    rows = [
        [
            f"≤{int(edge):,}",
            f"{texts:,}",
            f"{tokens:,}",
            f"{computed - tokens:,}",
            f"{100 * (1 - tokens / computed) if computed else 0:.1f}%",
        ]
        for edge, (texts, tokens, computed) in report["lengths"].items()
    ]
    texts, tokens, computed = (sum(c[i] for c in report["lengths"].values()) for i in range(3))
    padding = (
        "nothing was padded"
        if tokens == computed
        else (f"{100 * (1 - tokens / computed):.1f}% of the computed tokens are padding")
    )
    return _figure(
        "Lengths and padding",
        f"{texts:,} different texts, {tokens / max(texts, 1):,.0f} tokens on average; {padding}.",
        plots.plot_lengths(report["lengths"]),
        _table(["tokens of a text", "texts", "their tokens", "padding", "of computed"], rows),
    )


def _throughput(report: Mapping[str, Any]) -> str:
    throughput = bin_throughput(report["timeline"], report["wall_s"])
    actors = sorted(report["actors"].items(), key=lambda item: item[1]["tokens_per_second"])
    rows = [
        [
            name,
            f"{actor['shards']:,}",
            f"{actor['rows_per_second']:,.0f}",
            f"{actor['tokens_per_second']:,.0f}",
            format_seconds(actor["busy_s"]),
            f"{actor['peak_rss_bytes'] / 2**20:,.0f}",
        ]
        for name, actor in actors[:_MAX_TABLE_ROWS]
    ]
    heads = ["actor", "shards", "rows/s", "tokens/s", "scoring", "peak MiB"]
    return _figure(
        "Throughput",
        "Tokens per second by actor, each shard spread over the time it took.",
        plots.plot_throughput(throughput),
        _table(heads, rows, of=len(actors), order="slowest first"),
    )


def _timeline(report: Mapping[str, Any]) -> str:
    lanes = plan_lanes(report["timeline"], report["wall_s"])
    num_actors = len({entry["actor"] for entry in report["timeline"]})
    many = (
        f" {len(lanes)} of {num_actors:,} actors: some that died, others spread over their ends."
        if num_actors > len(lanes)
        else ""
    )
    entries = sorted(
        report["timeline"], key=lambda e: (not e["lost"], e["start_s"] - e["end_s"], e["name"])
    )
    rows = [
        [
            entry["actor"],
            f"{entry['job']} {entry['name'].removeprefix('slice ')}",
            str(entry["attempt"]) + (", lost" if entry["lost"] else ""),
            f"{entry['start_s']:,.1f}",
            f"{entry['end_s'] - entry['start_s']:,.1f}",
            f"{entry['tokens']:,}",
        ]
        for entry in entries[:_MAX_TABLE_ROWS]
    ]
    heads = ["actor", "job", "attempt", "start, s", "took, s", "tokens"]
    return _figure(
        "Timeline",
        f"Who did what when; a cross marks what was lost with its actor and done again.{many}",
        plots.plot_timeline(lanes, report["wall_s"]),
        _table(heads, rows, of=len(entries), order="lost and longest first"),
    )


def _footer(report: Mapping[str, Any]) -> str:
    bundle = report["bundle"]
    facts = {
        "bundle": f"{bundle['path']} ({bundle['precision']}, {bundle['digest'][:12]})",
        "token budget": f"{bundle['max_batch_tokens']:,} tokens a batch",
        "actors": "; ".join(report["cores"][:_MAX_TABLE_ROWS]) or "none were needed",
        "memory": f"{report['peak_rss_bytes'] / 2**20:,.0f} MiB at an actor's peak",
    }
    items = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>\n" for name, value in facts.items())
    return (
        f'<footer>\n<dl class="facts">\n{items}</dl>\n'
        '<p class="note">Drawn by fastformers from report.json, which has every number.</p>\n'
        "</footer>"
    )


def _figure(heading: str, caption: str, svg: str, table: str) -> str:
    return (
        f"<h2>{escape(heading)}</h2>\n<figure>\n<figcaption>{escape(caption)}</figcaption>\n{svg}\n"
        f"</figure>\n<details><summary>Table</summary><div>\n{table}\n</div></details>"
    )


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, of: int | None = None, order: str = ""
) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    caption = ""
    if of is not None:
        count = f"{len(rows)} of {of:,}, " if of > len(rows) else ""
        caption = f"<caption>{count}{order}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _fill(title: str, sections: Sequence[str]) -> str:
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), body="\n".join(sections))


def _places(amounts: Iterable[float]) -> int:
    """Decimal places that show each amount in full."""
    return max(2, *(len(f"{usd:.12f}".rstrip("0").partition(".")[2]) for usd in amounts))
