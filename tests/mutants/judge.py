"""Run tests on a copy of the tree in which one module is changed.

    mutants -> [judge] -> killed or survived

A judge is a process of its own inside the copy, so that nothing of the working tree is loaded. It
imports once the libraries that the tests need, and forks for each mutant: the child imports the
copy and runs the tests. A mutant is killed by a test that fails, or if the tests take many times
what they take without it. This module knows nothing of how mutants are made.
"""

import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.sources import ROOT, list_files

# The wall time is generous, as machines are busy: what loops forever uses up its CPU time.
_CPU_FACTOR, _CPU_S, _WALL_FACTOR, _WALL_S = 4, 10, 10, 60
_ALL_PASSED, _NO_TESTS = 0, 5  # exit statuses of pytest
_POLL_S = 0.02
_UNLIMITED_S = 3600.0
_OPTIONS = (
    *("-x", "-q", "-m", "not slow and not cluster", "-p", "no:cacheprovider"),
    "--hypothesis-seed=1",
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # plugins are loaded before
)


class BrokenTestsError(Exception):
    """Tests fail on the module as it is, or do not import it: they cannot judge."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Tests that ran in a forked process.

    Attributes:
        status: Exit status of pytest; None where a limit or a signal ended it.
        cpu_s: CPU time of the process and of those it started and waited for.
        wall_s: Time from fork to end.
        modules: Modules that it had loaded at its end, if it was asked for them.
    """

    status: int | None
    cpu_s: float
    wall_s: float
    modules: tuple[str, ...] = ()


class Judge:
    """A copy of the tree, and the process that runs tests in it."""

    def __init__(self, copy: Path) -> None:
        self.copy = copy
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.judge", str(copy.parent)],
            cwd=copy,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, **question: Any) -> Trial:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return Trial(**json.loads(self._process.stdout.readline()))

    def check_tests(self, module: str, tests: Sequence[str]) -> Trial:
        """Run tests on the module as it is: what they take limits what mutants may take.

        Raises:
            BrokenTestsError: They fail, or the module is not imported from the copy.
        """
        self._ask(tests=tests, cpu_s=_UNLIMITED_S, wall_s=_UNLIMITED_S, is_mutant=False)
        # The first run has written bytecode, and its libraries are loaded: mutants are as fast.
        trial = self._ask(tests=tests, cpu_s=_UNLIMITED_S, wall_s=_UNLIMITED_S, is_mutant=False)
        log = (self.copy.parent / "log").read_text(errors="replace")
        if trial.status != _ALL_PASSED:
            raise BrokenTestsError(f"{module}: its tests fail without a change:\n{log}")
        path = module if module.startswith("fastformers/") else f"fastformers/{module}"
        if path.removesuffix(".py").replace("/", ".") not in trial.modules:
            raise BrokenTestsError(f"{module}: its tests do not import it: {' '.join(tests)}")
        return trial

    def is_killed(self, module: str, source: str, tests: Sequence[str], usual: Trial) -> bool:
        """Whether tests notice another source of a module; the source is put back."""
        path = self.copy / module
        before = path.read_text(encoding="utf-8")
        for left in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            left.unlink()  # Python takes bytecode for current by a file's size and whole seconds
        path.write_text(source, encoding="utf-8")
        try:
            trial = self._ask(
                tests=tests,
                cpu_s=_CPU_S + _CPU_FACTOR * usual.cpu_s,
                wall_s=_WALL_S + _WALL_FACTOR * usual.wall_s,
                is_mutant=True,
            )
        finally:
            path.write_text(before, encoding="utf-8")
        return trial.status not in (_ALL_PASSED, _NO_TESTS)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextlib.contextmanager
def open_judge(directory: Path) -> Iterator[Judge]:
    """Copy the tree into an empty directory and start a judge there."""
    copy = directory / "tree"
    for name in list_files():
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    judge = Judge(copy)
    try:
        yield judge
    finally:
        judge.close()


def _serve(directory: Path) -> None:
    """Answer each line of stdin, a question, with a trial."""
    answers = os.fdopen(os.dup(1), "w")
    loaded: set[str] = set()
    for line in sys.stdin:
        trial = _run_tests(directory, **json.loads(line))
        _import_libraries([name for name in trial.modules if name not in loaded])
        loaded.update(trial.modules)
        answers.write(json.dumps(asdict(trial)) + "\n")
        answers.flush()


def _import_libraries(names: Sequence[str]) -> None:
    """Import what tests had imported, but for this project and what only they can import."""
    for name in names:
        if name.partition(".")[0] not in ("fastformers", "tests", "__main__", "__mp_main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def _run_tests(
    directory: Path, *, tests: list[str], cpu_s: float, wall_s: float, is_mutant: bool
) -> Trial:
    start = time.perf_counter()
    modules = directory / "modules"
    modules.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _run_in_child(directory, tests, cpu_s, is_mutant)
    while True:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        wall_s_now = time.perf_counter() - start
        if ended or wall_s_now > wall_s:
            break
        time.sleep(_POLL_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it has left behind ends, too
    if not ended:
        _, status, used = os.wait4(pid, 0)
    return Trial(
        status=os.waitstatus_to_exitcode(status) if ended and os.WIFEXITED(status) else None,
        cpu_s=used.ru_utime + used.ru_stime,
        wall_s=time.perf_counter() - start,
        modules=tuple(modules.read_text().split()) if modules.exists() else (),
    )


def _run_in_child(directory: Path, tests: list[str], cpu_s: float, is_mutant: bool) -> None:
    """Run pytest with the copy in this forked process, and end it."""
    os.setsid()
    log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1, int(cpu_s) + 2))
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    if is_mutant:
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    status = 3
    try:
        import pytest

        temporary = f"--basetemp={directory / 'temporary'}"
        status = int(pytest.main([*_OPTIONS, temporary, *tests]))
        sys.stdout.flush()
        if not is_mutant:
            (directory / "modules").write_text("\n".join(sys.modules))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
