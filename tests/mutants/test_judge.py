"""Mutants of a module of two functions, in a copy of a tree that has nothing else."""

import shutil

import pytest

from tests.mutants import judge as judge_module
from tests.mutants.judge import BrokenTestsError, Judge
from tests.sources import ROOT

MODULE, TESTS = "fastformers/half.py", ["tests/test_half.py"]
SOURCE = """
def half(number):
    while number < 0:
        number = -number
    return number // 2
"""
TEST = """
from fastformers.half import half

def test_half():
    assert half(-7) == 3
"""


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A judge whose mutants have little time."""
    copy = tmp_path_factory.mktemp("judge") / "tree"
    for name in ("tests/mutants/judge.py", "tests/sources.py"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    (copy / "fastformers").mkdir()
    (copy / "fastformers/__init__.py").touch()
    (copy / MODULE).write_text(SOURCE)
    (copy / TESTS[0]).write_text(TEST)
    (copy / "tests/test_none.py").write_text("def test(): ...")
    judge = Judge(copy)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_CPU_S", "_CPU_FACTOR"):
            patch.setattr(judge_module, name, 1)
        yield judge
    judge.close()


def test_a_mutant_is_killed_by_a_test_or_by_its_time_and_leaves_no_trace(judge):
    usual = judge.check_tests(MODULE, TESTS)

    def is_killed(old, new):
        """Mutants follow each other within a second, and are as long as the module."""
        assert old in SOURCE
        return judge.is_killed(MODULE, SOURCE.replace(old, new), TESTS, usual)

    assert is_killed("// 2", "// 3")
    assert not is_killed("< 0", "< 1")
    assert is_killed("-number", "+number")  # forever
    assert is_killed("return", "retrun")
    assert not is_killed("< 0", "<-1")
    assert (judge.copy / MODULE).read_text() == SOURCE


def test_tests_that_cannot_judge_are_refused(judge):
    with pytest.raises(BrokenTestsError, match=r"do not import it: tests/test_none\.py"):
        judge.check_tests(MODULE, ["tests/test_none.py"])
    (judge.copy / TESTS[0]).write_text(TEST.replace("3", "4"))
    with pytest.raises(BrokenTestsError, match=r"half\.py: its tests fail without a change"):
        judge.check_tests(MODULE, TESTS)
