"""What `fastformers bench` measured, as one value, and as its last line: the one place of its keys.

    parts -> [bench_report] -> last line of stdout -> [bench_report] -> tables, picture

The last line is flat: the numbers that are looked at first stand beside each other, those that were
not measured are null, and `not_run` says why. This module knows neither how anything is measured
nor how it is shown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fastformers.cluster.json_values import from_plain, to_plain
from fastformers.errors import InputError
from fastformers.jobs.benchmarks.parts import (
    BaselineRate,
    BaselinesPart,
    EngineRates,
    EnginesPart,
    JobPart,
    NotRun,
    OperatorShares,
    OperatorsPart,
    Ratio,
    RatioRange,
)
from fastformers.jobs.benchmarks.peers.catalog import FAMILIES, JOB_BASELINES, Family

FORMAT_VERSION = 2  # raised whenever a key comes, goes or changes its meaning


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """Everything that one `fastformers bench` measured.

    Attributes:
        engine: Which of our engines ran the jobs.
        max_batch_tokens: Token budget of its batches.
        precision: Precision of the bundle.
        weights: Name of the weights; None if the bundle does not say.
        corpus: File, directory or URI as it was given; None without.
        cpu_model: Name of this machine's processor.
        cores: How many cores of it could be used.
        versions: Versions of our own libraries, by package.
        repeats: How many times everything was measured.
        measured_at: ISO date.
        engines: Engines beside each other.
        operators: Where the time goes.
        job: The whole job.
        job_baselines: Whole jobs of others.
        profile: Path of this machine's profile, if one was asked for.
    """

    engine: str
    max_batch_tokens: int
    precision: str
    weights: str | None
    corpus: str | None
    cpu_model: str
    cores: int
    versions: dict[str, str]
    repeats: int
    measured_at: str
    engines: EnginesPart | NotRun
    operators: OperatorsPart | NotRun
    job: JobPart | NotRun
    job_baselines: BaselinesPart | NotRun
    profile: str | None = None

    def ratios(self) -> dict[str, float | NotRun]:
        """The numbers that are looked at first, by their keys."""
        engines, operators, job = self.engines, self.operators, self.job
        return {
            "engine_over_stock": (
                engines if isinstance(engines, NotRun) else _value(engines.over_stock)
            ),
            "engine_over_openvino": (
                engines if isinstance(engines, NotRun) else _value(engines.over_openvino)
            ),
            "engine_of_peak": (
                operators if isinstance(operators, NotRun) else _value(operators.of_peak)
            ),
            "job_over_engine": job if isinstance(job, NotRun) else job.job_over_engine,
            **{_over(f"best_{family}"): self._over_best(family) for family in FAMILIES},
            **{
                _over(name): (
                    self.job_baselines
                    if isinstance(self.job_baselines, NotRun)
                    else _median(self.job_baselines.our_ratio(name))
                )
                for name in JOB_BASELINES
            },
        }

    def _over_best(self, family: Family) -> float | NotRun:
        if isinstance(self.job_baselines, NotRun):
            return self.job_baselines
        best = self.job_baselines.fastest(family)
        return best if isinstance(best, NotRun) else _median(self.job_baselines.our_ratio(best))

    def to_json(self) -> dict[str, Any]:
        """The last line of stdout, as plain values: a ratio that is null has its reason."""
        ratios = self.ratios()
        return {
            "format_version": FORMAT_VERSION,
            **{key: to_plain(getattr(self, key)) for key in _HEADER},
            **{key: None if isinstance(r, NotRun) else r for key, r in ratios.items()},
            "not_run": {key: r.reason for key, r in ratios.items() if isinstance(r, NotRun)},
            **_write_engines(self.engines),
            **_write_operators(self.operators),
            **({} if isinstance(self.job, NotRun) else to_plain(self.job)),
            **_write_baselines(self.job_baselines),
            **({} if self.profile is None else {"profile": self.profile}),
        }

    @classmethod
    def from_json(cls, content: object, *, path: str) -> "BenchReport":
        """The report of which `to_json` made `content`.

        Args:
            content: What was read from a file.
            path: Where the file is, for messages.

        Raises:
            InputError: It is no report, one of another format version, or damaged.
        """
        if not isinstance(content, dict) or "not_run" not in content:
            raise InputError(f"{path}: is not the last line of `fastformers bench`")
        version = content.get("format_version", 0)
        if version != FORMAT_VERSION:
            raise InputError(
                f"{path}: is a report of format {version}, and this version reads "
                f"{FORMAT_VERSION}; measure again"
            )
        try:
            return cls(
                **{key: from_plain(_HEADER[key], _take(content, key), key) for key in _HEADER},
                engines=_read_engines(content),
                operators=_read_operators(content),
                job=_read_job(content),
                job_baselines=_read_baselines(content),
                profile=from_plain(str | None, content.get("profile"), "profile"),
            )
        except ValueError as error:
            raise InputError(f"{path}: damaged: {error}; measure again") from error


_HEADER: dict[str, Any] = {
    field.name: field.type
    for field in fields(BenchReport)
    if field.name not in ("engines", "operators", "job", "job_baselines", "profile")
}


def _over(name: str) -> str:
    return f"job_over_{name.replace('-', '_')}"


# Keys of the ratios to one way to run a tool, beside those to the fastest way.
SINGLE_BASELINES = frozenset(_over(name) for name in JOB_BASELINES)


def load_report(path: Path) -> BenchReport:
    """Read a last line that was kept in a file.

    Raises:
        InputError: There is no such file, or it is something else; see `BenchReport.from_json`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: is not the last line of `fastformers bench`") from error
    return BenchReport.from_json(content, path=str(path))


def _value(ratio: Ratio | NotRun) -> float | NotRun:
    return ratio if isinstance(ratio, NotRun) else ratio.value


def _median(ratio: RatioRange | NotRun) -> float | NotRun:
    return ratio if isinstance(ratio, NotRun) else ratio.value


def _by_case(ratio: Ratio | NotRun) -> dict[str, float]:
    return {} if isinstance(ratio, NotRun) else ratio.by_case


def _write_engines(part: EnginesPart | NotRun) -> dict[str, Any]:
    if isinstance(part, NotRun):
        return {}
    return {
        "engine_over_stock_by_case": _by_case(part.over_stock),
        "engine_over_openvino_by_case": _by_case(part.over_openvino),
        "engines": to_plain(part.rates),
    }


def _write_operators(part: OperatorsPart | NotRun) -> dict[str, Any]:
    if isinstance(part, NotRun):
        return {}
    return {
        "engine_of_peak_by_case": _by_case(part.of_peak),
        "int8_gops": part.int8_gops,
        "float_gops": part.float_gops,
        "whole_model_at_peak_tokens_per_second": part.whole_model_at_peak_tokens_per_second,
        "operators": to_plain(part.operators),
    }


def _write_baselines(part: BaselinesPart | NotRun) -> dict[str, Any]:
    if isinstance(part, NotRun):
        return {}
    return {
        "ours_beside_peers": to_plain(part.ours),
        "peers": to_plain(part.measured()),
    }


def _read_engines(content: Mapping[str, Any]) -> EnginesPart | NotRun:
    if "engines" not in content:
        return _read_reason(content, "engine_over_stock")
    return EnginesPart(
        over_stock=_read_ratio(content, "engine_over_stock"),
        over_openvino=_read_ratio(content, "engine_over_openvino"),
        rates=from_plain(tuple[EngineRates, ...], content["engines"], "engines"),
    )


def _read_operators(content: Mapping[str, Any]) -> OperatorsPart | NotRun:
    if "operators" not in content:
        return _read_reason(content, "engine_of_peak")
    limits = "whole_model_at_peak_tokens_per_second"
    return OperatorsPart(
        of_peak=_read_ratio(content, "engine_of_peak"),
        int8_gops=from_plain(float, _take(content, "int8_gops"), "int8_gops"),
        float_gops=from_plain(float, _take(content, "float_gops"), "float_gops"),
        whole_model_at_peak_tokens_per_second=from_plain(
            dict[str, float], _take(content, limits), limits
        ),
        operators=from_plain(OperatorShares, content["operators"], "operators"),
    )


def _read_job(content: Mapping[str, Any]) -> JobPart | NotRun:
    if "job_rows_per_second" not in content:
        return _read_reason(content, "job_over_engine")
    part: JobPart = from_plain(
        JobPart, {field.name: _take(content, field.name) for field in fields(JobPart)}
    )
    return part


def _read_baselines(content: Mapping[str, Any]) -> BaselinesPart | NotRun:
    if "peers" not in content:
        return _read_reason(content, _over(next(iter(JOB_BASELINES))))
    ours = "ours_beside_peers"
    measured = from_plain(dict[str, BaselineRate], content["peers"], "peers")
    return BaselinesPart(
        ours=from_plain(BaselineRate, _take(content, ours), ours),
        by_name={
            name: measured[name] if name in measured else _read_reason(content, _over(name))
            for name in JOB_BASELINES
        },
    )


def _read_ratio(content: Mapping[str, Any], key: str) -> Ratio | NotRun:
    if _take(content, key) is None:
        return _read_reason(content, key)
    by_case = f"{key}_by_case"
    return Ratio(
        value=from_plain(float, content[key], key),
        by_case=from_plain(dict[str, float], _take(content, by_case), by_case),
    )


def _read_reason(content: Mapping[str, Any], key: str) -> NotRun:
    reasons = from_plain(dict[str, str], _take(content, "not_run"), "not_run")
    return NotRun(reason=_take(reasons, key))


def _take(content: Mapping[str, Any], key: str) -> Any:
    if key not in content:
        raise ValueError(f"{key} is missing")
    return content[key]
