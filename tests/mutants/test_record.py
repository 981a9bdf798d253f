"""What is kept of a measurement, and that what is kept is true of the modules as they are."""

import pytest

from tests.mutants.modules import MODULES, find_tests
from tests.mutants.mutations import find_mutants
from tests.mutants.record import (
    PAGE,
    Measured,
    find_again,
    make_table,
    read_measured,
    read_reasons,
    table_of_page,
    with_table,
    write_measured,
)
from tests.sources import ROOT

SEEN, UNSEEN = ("f", "return 1", "return None"), ("", "x = 1", "x = 2")


def measured(**changes):
    fields = {
        "date": "2026-11-26",
        "seed": 1,
        "possible": 50,
        "tried": 20,
        "killed_first": 15,
        "killed": 18,
        "survivors": (SEEN, UNSEEN),
    }
    return Measured(**{**fields, **changes})


def test_measurements_come_back_as_they_were_written(tmp_path):
    found = {"a/c.py": measured(), "a/b.py": measured(survivors=())}
    assert read_measured(tmp_path / "none.json") == {}
    write_measured(found, tmp_path / "a.json")
    assert read_measured(tmp_path / "a.json") == found
    assert list(read_measured(tmp_path / "a.json")) == ["a/b.py", "a/c.py"]


def test_a_table_has_a_line_for_each_folder_and_explained_mutants_are_not_killed():
    found = {
        "a/b.py": measured(),
        "a/c.py": measured(tried=10, killed_first=10, killed=10, survivors=()),
        "d/e.py": measured(tried=4, killed_first=3, killed=3, survivors=(UNSEEN,)),
    }
    lines = make_table(found, {"a/b.py": {UNSEEN: "why"}}).splitlines()
    assert lines[2:] == [
        "| `a` | 2 | 30 | 83.3% | 93.3% | 1 | 1 |",
        "| `d` | 1 | 4 | 75.0% | 75.0% | 0 | 1 |",
        "| all | 3 | 34 | 82.4% | 91.2% | 1 | 2 |",
    ]


def test_a_table_takes_the_place_of_the_one_before():
    page = PAGE.read_text("utf-8")
    other = with_table(page, "| a |\n")
    assert table_of_page(other) == "| a |\n"
    assert with_table(other, table_of_page(page)) == page


def test_a_survivor_is_found_again_where_the_module_still_has_it():
    mutants = find_mutants("def f():\n    return 1\n")
    assert [mutant.key for mutant in find_again(mutants, [SEEN, UNSEEN])] == [SEEN]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_decides_has_tests(module):
    assert (ROOT / module).is_file()
    assert find_tests(module)
    assert all((ROOT / test).is_file() for test in find_tests(module))


@pytest.mark.parametrize("module", read_reasons())
def test_an_explained_mutant_is_one_of_the_module_as_it_is(module):
    """Where its line has changed, the explanation goes."""
    keys = {mutant.key for mutant in find_mutants((ROOT / module).read_text("utf-8"))}
    assert set(read_reasons()[module]) - keys == set()
    assert all(read_reasons()[module].values())


def test_the_table_of_the_page_is_what_was_measured():
    found, reasons = read_measured(), read_reasons()
    assert found.keys() <= MODULES.keys()
    assert all(m.tried == m.killed + len(m.survivors) for m in found.values())
    assert table_of_page(PAGE.read_text("utf-8")) == make_table(found, reasons)
