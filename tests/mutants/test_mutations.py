"""What could be changed in a few lines of code, and what is left alone."""

import ast
from pathlib import Path

import pytest

from tests.mutants import mutations
from tests.mutants.mutations import find_mutants


def mutants_of(source):
    """The changed lines of each mutant."""
    return [mutant.mutant for mutant in find_mutants(source)]


@pytest.mark.parametrize(
    ("line", "mutants"),
    [
        ("x = a < b", ["x = a <= b"]),
        ("x = a <= b == c", ["x = a < b == c", "x = a <= b != c"]),
        ("x = a is not b", ["x = a is b"]),
        ("x = a not in b", ["x = a in b"]),
        ("x = (a) and (b) or c", ["x = (a) or (b) or c", "x = (a) and (b) and c"]),
        ("x = not a", ["x = a"]),
        ("x = -(a) // b", ["x = (a) // b", "x = -(a) * b"]),
        ("x = a + 1", ["x = a - 1", "x = a + 2"]),
        ("x = 2.5 ** a", ["x = 3.5 ** a", "x = 2.5 * a"]),
        ("x += a", ["x -= a"]),
        ("x = True", ["x = False"]),
        ("x = max(a, key=b)", ["x = min(a, key=b)"]),
        ("x = a[1:]", ["x = a[2:]"]),
        ("x = a if b else c", ["x = a if not (b) else c"]),
        ("x = [a for a in b if c]", ["x = [a for a in b if not (c)]"]),
        ("a(b)", ["pass"]),
        ("raise a('x' + 1)", ["pass"]),
        ("del a[1]", ["pass"]),
        ("def f(): return False", ["def f(): return True"]),
    ],
)
def test_one_thing_is_changed_at_a_time(line, mutants):
    assert mutants_of(f"{line}\n") == mutants


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring of 2 lines."""',
        "x: Annotated[int, 1 + 1]",
        "logger.info('%s', 1 + 1)",
        "assert a < 1, 2",
        "x = f'{a + 1} rows'",
        "x = 'a' + b",
        "zip(a, b, strict=True).x",
        "if TYPE_CHECKING:\n    import a",
        "@dataclass(frozen=True)\nclass A:\n    x: int",
        "def f(a: Literal[1]) -> Literal[2]:\n    return None",
    ],
)
def test_what_no_test_should_see_is_left_alone(source):
    assert mutants_of(f"{source}\n") == []


def test_a_loop_and_a_function_are_changed():
    loops = "    while a:\n        break\n    for c in a:\n        continue\n"
    source = f"def f(a, b=1):\n{loops}    return b\n"
    assert mutants_of(source) == [
        "def f(a, b=2):",
        "while not (a):",
        "continue",
        "break",
        "return None",
    ]


def test_a_mutant_is_named_by_its_function_and_lines_wherever_they_are():
    source = "class A:\n    def f(self):\n        return g(\n            1,\n        )\n"
    keys = [mutant.key for mutant in find_mutants(source)]
    assert keys == [
        ("A.f", "return g( 1, )", "return None"),
        ("A.f", "1,", "2,"),
    ]
    assert [mutant.key for mutant in find_mutants(f"import x\n\n\n{source}")] == keys


def test_a_change_is_where_it_says_also_behind_signs_of_several_bytes_and_other_operators():
    source = "x = 'é→' in a, b  # a < b\ny = (a # <\n    < b)\n"
    changed = [mutant.apply(source) for mutant in find_mutants(source)]
    assert changed == [
        source.replace("in a", "not in a"),
        source.replace("    < b", "    <= b"),
    ]


def test_every_mutant_of_a_module_is_python_and_another_module():
    source = Path(mutations.__file__).read_text(encoding="utf-8")
    whole, mutants = ast.dump(ast.parse(source)), find_mutants(source)
    assert len(mutants) > 50
    for mutant in mutants[::5]:
        assert ast.dump(ast.parse(mutant.apply(source))) != whole, mutant.key
