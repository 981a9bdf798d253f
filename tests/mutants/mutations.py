"""The small mistakes that somebody could make in a module: an operator, a number, a line gone.

    source -> [mutations] -> mutants -> judge -> killed or survived

Messages, logs, annotations, decorators and assertions stay as they are: what they say is seen by
eyes, not by decisions. This module runs nothing.
"""

import ast
import io
import itertools
import tokenize
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_OPERATORS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
# Checks of what the code itself has made, and what only type checkers or other processes see.
_UNSEEN_KEYWORDS = {"daemon", "exist_ok", "ignore_errors", "missing_ok", "strict"}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of one place.

    Attributes:
        function: Qualified name of the function or class that holds the place; "" for the module.
        line: The changed lines as they were, white space collapsed.
        mutant: The same lines, changed.
        start: Where the change begins, in characters of the source.
        stop: Where what it replaces ends.
        text: What is there instead.
    """

    function: str
    line: str
    mutant: str
    start: int
    stop: int
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What names the mutant, also after lines above it have moved."""
        return self.function, self.line, self.mutant

    def apply(self, source: str) -> str:
        """The source with the change."""
        return source[: self.start] + self.text + source[self.stop :]


def find_mutants(source: str) -> list[Mutant]:
    """All mutants of a module, in the order of their places."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(finder.mutants, key=lambda mutant: (mutant.start, mutant.stop, mutant.text))


class _Finder(ast.NodeVisitor):
    """Walks a module and notes what could be changed."""

    def __init__(self, source: str) -> None:
        self.mutants: list[Mutant] = []
        self._source = source
        self._lines = source.splitlines(keepends=True)
        self._line_starts = [0, *itertools.accumulate(map(len, self._lines))]
        self._names: list[str] = []
        self._tokens = [
            (self._line_starts[token.start[0] - 1] + token.start[1], token.string)
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type in (tokenize.OP, tokenize.NAME)
        ]

    def _place(self, line: int, column_bytes: int) -> int:
        """Characters before a place of the tree, which counts in bytes of a line."""
        before = self._lines[line - 1].encode()[:column_bytes]
        return self._line_starts[line - 1] + len(before.decode())

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._place(node.lineno, node.col_offset)

    def _stop(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._place(node.end_lineno, node.end_col_offset)

    def _add(self, start: int, stop: int, text: str) -> None:
        first = self._source.rfind("\n", 0, start) + 1
        last = self._source.find("\n", stop)
        before, after = self._source[first:start], self._source[stop:last]
        self.mutants.append(
            Mutant(
                function=".".join(self._names),
                line=" ".join((before + self._source[start:stop] + after).split()),
                mutant=" ".join((before + text + after).split()),
                start=start,
                stop=stop,
                text=text,
            )
        )

    def _replace(self, node: ast.expr | ast.stmt, text: str) -> None:
        self._add(self._start(node), self._stop(node), text)

    def _replace_between(self, left: int, right: int, old: str, new: str) -> None:
        """Replace the operator `old`, of one or two words, between two places."""
        words = old.split()
        for index, (start, word) in enumerate(self._tokens):
            if left <= start < right and word == words[0]:
                last_start, last = self._tokens[index + len(words) - 1]
                self._add(start, last_start + len(last), new)
                return

    def _negate(self, test: ast.expr) -> None:
        """Turn a condition around, where no operator of it is changed anyway."""
        if not isinstance(test, ast.Compare | ast.Constant) and not _is_not(test):
            start, stop = self._start(test), self._stop(test)
            self._add(start, stop, f"not ({self._source[start:stop]})")

    def _visit_definition(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    ) -> None:
        self._names.append(node.name)
        if not isinstance(node, ast.ClassDef):
            for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)
        self._names.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _visit_definition

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        """Nothing: it is for type checkers."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Nothing: it is part of a message."""

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace(node, "pass")

    def visit_Delete(self, node: ast.Delete) -> None:
        self._replace(node, "pass")

    def visit_Break(self, node: ast.Break) -> None:
        self._replace(node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace(node, "break")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not _is_false(node.value):
            self._replace(node.value, "None")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            if _is_log(node.value):
                return
            self._replace(node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if (names := _OPERATORS.get(type(node.op))) is not None:
            old, new = (f"{name}=" for name in names)
            self._replace_between(self._stop(node.target), self._start(node.value), old, new)
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for (left, right), operator in zip(
            itertools.pairwise([node.left, *node.comparators]), node.ops, strict=True
        ):
            names = _COMPARISONS[type(operator)]
            self._replace_between(self._stop(left), self._start(right), *names)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in itertools.pairwise(node.values):
            self._replace_between(self._stop(left), self._start(right), old, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub):
            start = self._start(node)
            self._add(start, start + (3 if isinstance(node.op, ast.Not) else 1), "")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        names = _OPERATORS.get(type(node.op))
        if names is not None and not (_is_text(node.left) or _is_text(node.right)):
            self._replace_between(self._stop(node.left), self._start(node.right), *names)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
            self._replace(node.func, _FUNCTIONS[node.func.id])
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in _UNSEEN_KEYWORDS:
            self.visit(node.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._replace(node, str(not node.value))
        elif isinstance(node.value, int | float):
            self._replace(node, repr(node.value + 1))


def _is_false(node: ast.expr) -> bool:
    """Whether it is None, or would rarely be told from it."""
    return isinstance(node, ast.Constant) and (node.value is None or node.value is False)


def _is_not(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _is_text(node: ast.expr) -> bool:
    is_string = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return is_string or isinstance(node, ast.JoinedStr)


def _is_log(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id == "logger"
    )
