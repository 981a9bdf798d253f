"""A dated table of instance prices, and seconds of machines turned into USD.

    seconds of a job -> [prices] -> USD per million rows -> report

`prices.csv` beside this file has what the instance types of three clouds cost per hour. Each row
carries its source and date in the columns `source` and `as_of`, and they say what to trust: AWS
spot prices are estimates from a savings rate, Azure spot prices are of 2024. So totals use
on-demand prices, and spot only where the caller asks for it (`market.py`). CPU generations and
clocks (sustained on all cores as the cloud or vendor says, good to about 10%) are common knowledge.

A table of the user has the same columns. These may be left out or empty: `cpu_generation` (a name
of `CPU_GENERATIONS`), `clock_ghz`, `usd_per_hour_reserved`, `spot_as_of` (the date of the spot
price, where it is not `as_of`), `spot_is_estimate` (yes or no), and `currency`: prices are in USD,
or in another currency whose rate `usd_per_unit` gives.

This module knows hours and rows; it knows nothing of shards, models or Ray.
"""

import csv
import difflib
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

from fastformers.errors import InputError
from fastformers.formatting import format_count
from fastformers.inference.cpu import CPU_GENERATIONS, CpuGeneration

PRICE_TABLE = Path(__file__).with_name("prices.csv")


@dataclass(frozen=True, kw_only=True)
class InstancePrice:
    """One instance type of one cloud, as `prices.csv` has it.

    Attributes:
        cloud: `aws`, `azure` or `gcp`.
        region: Region of both prices, by the cloud's own name.
        instance_type: The cloud's name of the type; unique in the table.
        vcpus: Logical CPUs.
        physical_cores: `vcpus` halved where `cpu` says "2 vCPU/core", else `vcpus`.
        memory_gib: Memory of the machine, without the GPUs'.
        gpu_name: Model and memory of each GPU; None without one.
        gpu_count: GPUs of the machine.
        cpu: Model of the CPU, its vector extensions and vCPUs per core.
        usd_per_hour_on_demand: List price of the machine.
        usd_per_hour_spot: Spot price, or None if unknown; read `source` before relying on it.
        as_of: ISO date of the on-demand price.
        source: Where both prices come from.
        cpu_generation: A name of `cpu.CPU_GENERATIONS`, the slowest where the cloud gives
            one of several; None if not known.
        clock_ghz: Sustained clock of all cores, or None if not known.
        usd_per_hour_reserved: Price under the table's kind of reservation, or None.
        spot_as_of: ISO date of the spot price, or None without one.
        spot_is_estimate: Whether the spot price was worked out rather than read.
    """

    cloud: str
    region: str
    instance_type: str
    vcpus: int
    physical_cores: int
    memory_gib: float
    gpu_name: str | None
    gpu_count: int
    cpu: str
    usd_per_hour_on_demand: float
    usd_per_hour_spot: float | None
    as_of: str
    source: str
    cpu_generation: str | None = None
    clock_ghz: float | None = None
    usd_per_hour_reserved: float | None = None
    spot_as_of: str | None = None
    spot_is_estimate: bool = False

    @property
    def generation(self) -> CpuGeneration | None:
        """What is known of its processor's generation; None where the cloud does not name it."""
        return CPU_GENERATIONS.get(self.cpu_generation or "")

    @property
    def is_arm(self) -> bool:
        """Whether its processor is known to be an ARM one."""
        return self.generation is not None and self.generation.is_arm


_OPTIONAL_COLUMNS = (
    *("cpu_generation", "clock_ghz", "usd_per_hour_reserved", "spot_as_of", "spot_is_estimate"),
    *("currency", "usd_per_unit"),
)
_REQUIRED_COLUMNS = tuple(
    field.name for field in fields(InstancePrice) if field.name not in _OPTIONAL_COLUMNS
)


@dataclass(frozen=True, kw_only=True)
class HourlyPrice:
    """What a job pays for an hour of one machine.

    Attributes:
        usd_per_hour: Price of one machine.
        label: Where the price comes from, for people.
        is_estimate: True if the user named neither a price nor an instance type.
        instance_type: The type that it is the price of, or None.
        mismatch: What the machine is seen to have that the type has not, for people, or None.
    """

    usd_per_hour: float
    label: str
    is_estimate: bool
    instance_type: str | None = None
    mismatch: str | None = None

    def __str__(self) -> str:
        """Where the price comes from, and what speaks against it."""
        return self.label if self.mismatch is None else f"{self.label}; {self.mismatch}"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """The cells of one row, with its place for messages."""

    path: Path
    line: int
    cells: Mapping[str, str | None]

    def text(self, column: str) -> str:
        text = (self.cells[column] or "").strip()
        if not text:
            raise self.error(column, "is empty; fill it in")
        return text

    def integer(self, column: str, *, at_least: int) -> int:
        text = self.text(column)
        try:
            value = int(text)
        except ValueError as error:
            raise self.error(column, f"{text!r} is not a whole number; write 16") from error
        if value < at_least:
            raise self.error(column, f"{value} is too small; it must be at least {at_least}")
        return value

    def positive(self, column: str) -> float:
        text = self.text(column)
        try:
            value = float(text)
        except ValueError as error:
            raise self.error(column, f"{text!r} is not a number; write 0.68") from error
        if not (0 < value < math.inf):
            raise self.error(column, f"{text} is not usable; it must be above 0 and finite")
        return value

    def optional(self, column: str) -> str | None:
        """Text of a cell that may be empty, or of a column that may be missing."""
        return (self.cells.get(column) or "").strip() or None

    def optional_positive(self, column: str) -> float | None:
        return None if self.optional(column) is None else self.positive(column)

    def iso_date(self, column: str) -> str:
        text = self.text(column)
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError as error:
            raise self.error(column, f"{text!r} is not a date; write 2026-07-20") from error

    def error(self, column: str, what: str) -> InputError:
        return InputError(f"{self.path}: line {self.line}, column {column}: {what}")


def load_prices(path: Path | None = None) -> dict[str, InstancePrice]:
    """Read a price table; returns its rows by instance type.

    Args:
        path: A CSV file with the columns of `InstancePrice`; None for the table that
            ships with the package.

    Raises:
        InputError: The file cannot be read, or a row cannot be used; names line and column.
    """
    path = PRICE_TABLE if path is None else path
    prices: dict[str, InstancePrice] = {}
    line_of_type: dict[str, int] = {}
    for row in _read_rows(path):
        price = _parse_price(row)
        name = price.instance_type
        if name in prices:
            what = f"{name} is on line {line_of_type[name]} already; keep one of them"
            raise row.error("instance_type", what)
        prices[name] = price
        line_of_type[name] = row.line
    if not prices:
        raise InputError(
            f"{path}: no rows; add an instance type, or use the table that ships with the package"
        )
    return prices


def find_price(instance_type: str, prices: Mapping[str, InstancePrice]) -> InstancePrice:
    """Look up an instance type.

    Raises:
        InputError: The table does not have it; names the closest types.
    """
    if instance_type in prices:
        return prices[instance_type]
    name_of_lower = {name.lower(): name for name in prices}
    close = difflib.get_close_matches(instance_type.lower(), name_of_lower)
    names = ", ".join(name_of_lower[lower] for lower in close)
    hint = f"did you mean {names}?" if names else f"none of the {len(prices)} known is close to it"
    raise InputError(f"unknown instance type {instance_type!r}; {hint} (or give --usd-per-hour)")


def choose_price(
    *,
    usd_per_hour: float | None,
    instance_type: str | None,
    num_cores: int,
    prices: Mapping[str, InstancePrice],
) -> HourlyPrice:
    """Decide what an hour of one machine costs: as given, by its type, or as an estimate.

    The estimate is the median on-demand price of a physical core over the types without a GPU.

    Args:
        usd_per_hour: The user's own price, or None.
        instance_type: A type of the table, or None.
        num_cores: Physical cores that the job uses of the machine; only the estimate needs it.
        prices: The table of `load_prices`.

    Raises:
        InputError: Both are given, the price is not above 0 and finite, the type is unknown, or the
            table has no type without a GPU to estimate from.
        ValueError: There is less than one core to estimate for.
    """
    if usd_per_hour is not None and instance_type is not None:
        raise InputError("both --usd-per-hour and --instance-type were given; leave one out")
    if usd_per_hour is not None:
        if not (0 < usd_per_hour < math.inf):
            raise InputError(f"--usd-per-hour must be above 0 and finite, not {usd_per_hour}")
        label = f"{usd_per_hour:g} USD per hour, as given"
        return HourlyPrice(usd_per_hour=usd_per_hour, label=label, is_estimate=False)
    if instance_type is not None:
        return price_on_demand(find_price(instance_type, prices))
    return _estimate_price(num_cores, prices)


def price_on_demand(price: InstancePrice) -> HourlyPrice:
    """List price of a type of the table."""
    return HourlyPrice(
        usd_per_hour=price.usd_per_hour_on_demand,
        label=f"{price.instance_type} on demand, {price.region}, {price.as_of}",
        is_estimate=False,
        instance_type=price.instance_type,
    )


def usd_of(seconds: float, *, usd_per_hour: float, num_machines: int = 1) -> float:
    """Price of machines that are held together for some seconds.

    Raises:
        ValueError: The time is negative or not finite, or there is no machine.
    """
    if not (0 <= seconds < math.inf) or num_machines < 1:
        raise ValueError(f"cannot price {seconds} seconds of {num_machines} machines")
    return seconds / 3600 * usd_per_hour * num_machines


def usd_per_million(usd_total: float, num_rows: int) -> float:
    """Price of a million rows at the rate of `num_rows` that cost `usd_total`.

    Raises:
        ValueError: There are no rows, hence no rate.
    """
    if num_rows < 1:
        raise ValueError(f"USD per million needs at least one row, not {num_rows}")
    return usd_total / num_rows * 1_000_000


def _estimate_price(num_cores: int, prices: Mapping[str, InstancePrice]) -> HourlyPrice:
    if num_cores < 1:
        raise ValueError(f"cannot estimate a price for {num_cores} cores")
    usd_per_core_hour = [
        price.usd_per_hour_on_demand / price.physical_cores
        for price in prices.values()
        if price.gpu_count == 0
    ]
    if not usd_per_core_hour:
        raise InputError("the price table has no type without a GPU; give --usd-per-hour")
    median = statistics.median(usd_per_core_hour)
    return HourlyPrice(
        usd_per_hour=median * num_cores,
        label=(
            f"estimate: {format_count(num_cores, 'core')} at the median {median:.3f} USD "
            f"per core-hour of {len(usd_per_core_hour)} CPU types; "
            "set --instance-type or --usd-per-hour"
        ),
        is_estimate=True,
    )


def _read_rows(path: Path) -> list[_Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = [_Row(path=path, line=reader.line_num, cells=cells) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}; give another file") from error
    missing = [name for name in _REQUIRED_COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"{path}: line 1: missing column {', '.join(missing)}; "
            f"the header must have {','.join(_REQUIRED_COLUMNS)}"
        )
    unknown = [name for name in columns if name not in (*_REQUIRED_COLUMNS, *_OPTIONAL_COLUMNS)]
    if unknown:
        raise InputError(
            f"{path}: line 1: unknown column {unknown[0]}; "
            f"optional columns are {', '.join(_OPTIONAL_COLUMNS)}"
        )
    for row in rows:
        if None in row.cells:
            raise row.error("source", "more cells than columns; quote cells that have a comma")
    return rows


def _parse_price(row: _Row) -> InstancePrice:
    vcpus = row.integer("vcpus", at_least=1)
    physical_cores = row.integer("physical_cores", at_least=1)
    if physical_cores > vcpus:
        raise row.error(
            "physical_cores", f"{physical_cores} is more than the {vcpus} vcpus; fix it"
        )
    rate = _usd_per_unit(row)
    reserved = row.optional_positive("usd_per_hour_reserved")
    spot = row.optional_positive("usd_per_hour_spot")
    as_of = row.iso_date("as_of")
    spot_as_of = row.iso_date("spot_as_of") if row.optional("spot_as_of") else as_of
    return InstancePrice(
        cloud=row.text("cloud"),
        region=row.text("region"),
        instance_type=row.text("instance_type"),
        vcpus=vcpus,
        physical_cores=physical_cores,
        memory_gib=row.positive("memory_gib"),
        gpu_name=row.cells["gpu_name"] or None,
        gpu_count=row.integer("gpu_count", at_least=0),
        cpu=row.text("cpu"),
        usd_per_hour_on_demand=row.positive("usd_per_hour_on_demand") * rate,
        usd_per_hour_spot=None if spot is None else spot * rate,
        as_of=as_of,
        source=row.text("source"),
        cpu_generation=_cpu_generation(row),
        clock_ghz=row.optional_positive("clock_ghz"),
        usd_per_hour_reserved=None if reserved is None else reserved * rate,
        spot_as_of=None if spot is None else spot_as_of,
        spot_is_estimate=_yes(row, "spot_is_estimate"),
    )


def _usd_per_unit(row: _Row) -> float:
    currency = row.optional("currency") or "USD"
    if not (len(currency) == 3 and currency.isalpha() and currency.isupper()):
        raise row.error("currency", f"{currency!r} is not a currency; write USD")
    rate = row.optional_positive("usd_per_unit")
    if currency == "USD":
        if rate not in (None, 1.0):
            raise row.error("usd_per_unit", f"{rate:g} is not the rate of USD; leave it empty")
        return 1.0
    if rate is None:
        raise row.error(
            "currency",
            f"{currency!r} has no known rate; give it in a column usd_per_unit, or convert to USD",
        )
    return rate


def _cpu_generation(row: _Row) -> str | None:
    name = row.optional("cpu_generation")
    if name is not None and name not in CPU_GENERATIONS:
        known = ", ".join(CPU_GENERATIONS)
        raise row.error("cpu_generation", f"{name!r} is not known; leave it empty or use {known}")
    return name


def _yes(row: _Row, column: str) -> bool:
    text = row.optional(column) or "no"
    if text not in ("yes", "no"):
        raise row.error(column, f"{text!r} is neither yes nor no")
    return text == "yes"
