"""Read what `fastformers cost` said of a job, to hold it against the bill.

    cost.json -> [early_quote] -> EarlyQuote -> quotes.json, bill

The file is the last line of `cost`: rows by instance type, and a plan where a deadline or a budget
was given. This module knows only the few keys that it needs.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from fastformers.cluster.json_values import parse_last_json
from fastformers.cluster.records.quotes import EarlyQuote
from fastformers.errors import InputError

_HOUR_S = 3600.0


def read_early_quote(
    path: str,
    digests: Collection[str],
    instance_type: str | None,
    *,
    corpus: str,
    log: Callable[[str], None],
) -> EarlyQuote:
    """The quote of a file for one instance type: its plan, if that is for this type, else its row.

    A quote of another corpus is taken, and that is said: a part, or the files that were prepared
    since, may have been costed.

    Args:
        path: The file.
        digests: Digests of the bundle that will score, as a whole and of its graph.
        instance_type: Type that the run will be priced as; None for that of the plan, or of the
            one row.
        corpus: What the run scores, as the user names it.
        log: Shows a line to the user.

    Raises:
        InputError: It is no such file, or quotes another bundle, or no or several such types.
    """
    named = f"--quote {path}"
    try:
        content = parse_last_json(Path(path).read_text(encoding="utf-8"))
        costs = [content, *content["others"]]
        found = next((cost for cost in costs if cost["bundle_digest"] in digests), None)
        if found is None:
            raise InputError(
                f"{named}: quotes another bundle ({content['bundle']}); run fastformers cost with "
                "the --bundle of this run"
            )
        quoted = content.get("corpus")
        if quoted is not None and _place(str(quoted)) != _place(corpus):
            log(f"{named}: quotes another corpus, {quoted}; its error says nothing of this one")
        plan = content["plan"] if found is content else None
        if plan is not None and instance_type in (None, plan["instance_type"]):
            return _of_plan(path, plan)
        rows = [row for row in found["instances"] if instance_type in (None, row["instance_type"])]
        if len(rows) == 1:
            return _of_row(path, rows[0])
    except OSError as error:
        raise InputError(f"{named}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{named}: is not what fastformers cost prints last ({error!r}); write it with "
            "fastformers cost ... --json > FILE"
        ) from error
    if rows:
        raise InputError(
            f"{named}: quotes {len(rows)} instance types; give the --instance-type of this run"
        )
    raise InputError(f"{named}: has no instance type {instance_type}; run fastformers cost again")


def _place(corpus: str) -> str:
    """A corpus, however it is written."""
    return corpus.rstrip("/") if "://" in corpus else str(Path(corpus).resolve())


def _of_plan(path: str, plan: dict[str, Any]) -> EarlyQuote:
    return EarlyQuote(
        source=path,
        instance_type=str(plan["instance_type"]),
        machines=int(plan["num_instances"]) + int(plan["num_helpers"]),
        usd=float(plan["usd_total"]),
        usd_low=None,
        usd_high=None,
        hours=float(plan["wall_s"]) / _HOUR_S,
    )


def _of_row(path: str, row: dict[str, Any]) -> EarlyQuote:
    return EarlyQuote(
        source=path,
        instance_type=str(row["instance_type"]),
        machines=1,
        usd=float(row["usd_total"]),
        usd_low=float(row["usd_low"]),
        usd_high=float(row["usd_high"]),
        hours=float(row["wall_s"]) / _HOUR_S,
    )
