"""Make small mistakes in the modules that decide, and see whether their tests notice.

    python -m tests.mutants.run --modules cluster/shards cluster/report/bill.py --sample 40 --seed 1

Each mutant is tried in a copy of the tree by the tests of its module. Survivors that nobody has
explained are printed; what was measured goes into `measured.json` and the table of CONTRIBUTING.md.
The exit status is 1 if fewer than nine in ten mutants were killed, 2 if nothing could be measured.

mutmut names a module by its path and never meets one that is imported through a link, as `cluster`
and `jobs` are; cosmic-ray starts a process and loads all libraries for each mutant.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tests.mutants.judge import BrokenTestsError, Judge, open_judge
from tests.mutants.modules import MODULES, find_tests
from tests.mutants.mutations import Mutant, find_mutants
from tests.mutants.record import (
    PAGE,
    Key,
    Measured,
    find_again,
    make_table,
    read_measured,
    read_reasons,
    with_table,
    write_measured,
)
from tests.sources import ROOT

MIN_KILLED = 0.9


def main(arguments: Sequence[str] | None = None) -> int:
    """Try mutants, and return the exit status."""
    options = _parse(arguments)
    measured, reasons = read_measured(), read_reasons()
    modules = [name for name in MODULES if any(map(name.startswith, options.modules))]
    if options.again and not (modules := [name for name in modules if name in measured]):
        print("--again: none of these modules was measured yet; try a sample of its mutants first")
        return 2
    with tempfile.TemporaryDirectory() as directory, open_judge(Path(directory)) as judge:
        for module in modules:
            explained = reasons.get(module, {})
            try:
                if options.again:
                    found = _try_again(judge, module, measured[module], explained)
                else:
                    found = _try_sample(judge, module, options.sample, options.seed)
            except BrokenTestsError as error:
                print(error)
                return 2
            measured = {**read_measured(), module: found}
            write_measured(measured)
            _show(module, found, explained)
    table = make_table({name: measured[name] for name in MODULES if name in measured}, reasons)
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), table), encoding="utf-8")
    tried = sum(measured[name].tried for name in modules)
    killed = sum(measured[name].killed for name in modules)
    print(f"{killed:,} of {tried:,} mutants were killed: {killed / tried:.1%}")
    return 0 if killed >= MIN_KILLED * tried else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--modules",
        nargs="*",
        metavar="PATH",
        help="modules or folders, as they lie in the repository (all that decide)",
    )
    parser.add_argument(
        "--sample", type=int, default=40, help="mutants of each module, chosen at random (40)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the choice (1)")
    parser.add_argument(
        "--again",
        action="store_true",
        help="try only survivors of the last measurement that nobody has explained",
    )
    options = parser.parse_args(arguments)
    options.modules = options.modules or [""]
    for path in options.modules:
        if not any(name.startswith(path) for name in MODULES):
            parser.error(f"--modules {path}: has no module of tests/mutants/modules.py")
    if options.sample < 1:
        parser.error(f"--sample {options.sample}: give at least 1")
    return options


def _try_sample(judge: Judge, module: str, sample: int, seed: int) -> Measured:
    """Try mutants of a module that are chosen at random."""
    mutants = find_mutants((ROOT / module).read_text("utf-8"))
    chosen = random.Random(f"{seed} {module}").sample(mutants, min(sample, len(mutants)))
    survivors = _try_all(judge, module, chosen)
    killed = len(chosen) - len(survivors)
    return Measured(
        date=datetime.now(UTC).date().isoformat(),
        seed=seed,
        possible=len(mutants),
        tried=len(chosen),
        killed_first=killed,
        killed=killed,
        survivors=survivors,
    )


def _try_again(judge: Judge, module: str, last: Measured, explained: dict[Key, str]) -> Measured:
    """Try again what has survived and is not explained; the module must still have it."""
    keys = [key for key in last.survivors if key not in explained]
    mutants = find_again(find_mutants((ROOT / module).read_text("utf-8")), keys)
    if len(mutants) < len(keys):
        raise BrokenTestsError(f"{module}: has changed since {last.date}; measure it anew")
    left = {*_try_all(judge, module, mutants), *explained}
    survivors = tuple(key for key in last.survivors if key in left)
    return replace(last, killed=last.tried - len(survivors), survivors=survivors)


def _try_all(judge: Judge, module: str, mutants: Sequence[Mutant]) -> tuple[Key, ...]:
    """Keys of the mutants that survive."""
    if not mutants:
        return ()
    tests = find_tests(module)
    source = (ROOT / module).read_text("utf-8")
    usual = judge.check_tests(module, tests)
    return tuple(
        mutant.key
        for mutant in mutants
        if not judge.is_killed(module, mutant.apply(source), tests, usual)
    )


def _show(module: str, found: Measured, explained: dict[Key, str]) -> None:
    """One line for the module, and one for each survivor that nobody has explained."""
    known = sum(key in explained for key in found.survivors)
    rest = f", {known} cannot be seen" if known else ""
    print(f"{module}: {found.killed} of {found.tried} killed{rest}", flush=True)
    for key in found.survivors:
        if key not in explained:
            function, line, mutant = key
            print(f"  {function or 'module'}:\n    {line}\n    {mutant}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
