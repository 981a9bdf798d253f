"""What was measured, module by module, and why some mutants cannot be seen.

    fates of mutants -> [record] -> measured.json, table in CONTRIBUTING.md

`measured.json` is written by the command alone, `survivors.json` by hand: each mutant there has the
reason why no test can tell it from the module. It counts as survived all the same.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutants.mutations import Mutant
from tests.sources import ROOT

MEASURED = Path(__file__).with_name("measured.json")
EXPLAINED = Path(__file__).with_name("survivors.json")
PAGE = ROOT / "CONTRIBUTING.md"
_BEGIN, _END = "<!-- mutants: written by `make mutants` -->\n", "<!-- /mutants -->"
_HEAD = (
    "| modules of | modules | mutants | killed at first | killed now "
    "| cannot be seen | not seen |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n"
)

Key = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Fates of a sample of a module's mutants.

    Attributes:
        date: Day of the run, ISO 8601.
        seed: Seed of the sample.
        possible: Mutants that the module has.
        tried: Mutants in the sample.
        killed_first: Of these, how many made a test fail, or run for many times its usual time.
        killed: How many do, since tests were written for others. It says less than the number
            before: for another seed other mutants survive.
        survivors: The others, as `Mutant.key`.
    """

    date: str
    seed: int
    possible: int
    tried: int
    killed_first: int
    killed: int
    survivors: tuple[Key, ...]


def read_measured(path: Path = MEASURED) -> dict[str, Measured]:
    """The last measurement of each module that has one."""
    modules = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {
        module: Measured(**{**entry, "survivors": tuple(map(tuple, entry["survivors"]))})
        for module, entry in modules.items()
    }


def write_measured(measured: Mapping[str, Measured], path: Path = MEASURED) -> None:
    """Write measurements, the modules in order of their names."""
    modules = {module: asdict(measured[module]) for module in sorted(measured)}
    path.write_text(json.dumps(modules, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_reasons(path: Path = EXPLAINED) -> dict[str, dict[Key, str]]:
    """By module, why a mutant cannot be seen."""
    reasons: dict[str, dict[Key, str]] = {}
    for module, entries in json.loads(path.read_text(encoding="utf-8")).items():
        reasons[module] = {
            (entry["function"], entry["line"], entry["mutant"]): entry["reason"]
            for entry in entries
        }
    return reasons


def find_again(mutants: Iterable[Mutant], keys: Iterable[Key]) -> list[Mutant]:
    """Mutants with the given keys, as far as the module still has them."""
    by_key = {mutant.key: mutant for mutant in mutants}
    return [by_key[key] for key in keys if key in by_key]


def make_table(measured: Mapping[str, Measured], reasons: Mapping[str, Mapping[Key, str]]) -> str:
    """Markdown: a line for each folder of the modules, and their sum."""
    folders: dict[str, list[str]] = {}
    for module in sorted(measured):
        folders.setdefault(str(Path(module).parent), []).append(module)
    rows = [(f"`{folder}`", modules) for folder, modules in folders.items()]
    lines = []
    for name, modules in [*rows, ("all", sorted(measured))]:
        tried = sum(measured[module].tried for module in modules)
        first = sum(measured[module].killed_first for module in modules)
        killed = sum(measured[module].killed for module in modules)
        explained = sum(
            key in reasons.get(module, {})
            for module in modules
            for key in measured[module].survivors
        )
        shares = (f"{count / max(1, tried):.1%}" for count in (first, killed))
        cells = (len(modules), f"{tried:,}", *shares)
        left = (explained, tried - killed - explained)
        lines.append(f"| {' | '.join(map(str, (name, *cells, *left)))} |\n")
    return _HEAD + "".join(lines)


def table_of_page(page: str) -> str:
    """The table that a page has between its marks."""
    return page.partition(_BEGIN)[2].partition(_END)[0]


def with_table(page: str, table: str) -> str:
    """A page with another table between its marks."""
    before, _, rest = page.partition(_BEGIN)
    return before + _BEGIN + table + _END + rest.partition(_END)[2]
