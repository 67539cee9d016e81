"""The variables of a module, a class or a function while it is analyzed."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from dagorama_check.analysis.values import NOTHING, UNKNOWN, Value, join

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_INNER = {ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef}
#: Nodes, other than names, that may bind a name.
_BINDING = {
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.ExceptHandler,
    ast.MatchStar, ast.MatchAs, ast.MatchMapping,
}  # fmt: skip
#: Fields that hold no node which could bind a name. Most of the time of a check is spent in going through the others.
_WITHOUT_NAMES = {"arg", "attr", "ctx", "id", "kind", "module", "op", "ops", "type_comment"}


class Scope:
    """Variables, within the scope of the code around them.

    `names` has the values at the point that is analyzed. Functions that are defined here see `ever` instead, because
    they run at any time: what a variable may be anywhere.
    """

    def __init__(self, parent: Scope | None, own: frozenset[str], is_class: bool = False) -> None:
        self.parent = parent
        self.own = own  #: names that are bound here at any point
        self.is_class = is_class
        self.is_open = False  #: other names may be bound here: an import of `*`
        self.names: dict[str, Value] = {}
        self.ever: dict[str, Value] = {}

    def bind(self, name: str, value: Value) -> None:
        self.names[name] = value
        self.ever[name] = join(self.ever.get(name, NOTHING), value)

    def find(self, name: str) -> Value | None:
        """Return the value of a name here, and None if it must be a builtin."""
        if name in self.names:
            return self.names[name]
        if name in self.own or self.is_open:
            return UNKNOWN
        return self._around(name)

    def _around(self, name: str) -> Value | None:
        scope = self.parent
        while scope is not None:
            if not scope.is_class:
                if name in scope.ever:
                    return scope.ever[name]
                if name in scope.own or scope.is_open:
                    return UNKNOWN
            scope = scope.parent
        return None

    @property
    def lasts(self) -> bool:
        """Return whether the variables are the same for all calls of the functions that are defined here."""
        scope: Scope | None = self
        while scope is not None and scope.is_class:
            scope = scope.parent
        return scope is None or scope.parent is None

    def forget(self, names: frozenset[str]) -> None:
        """Take the values of these variables as unknown from here on."""
        for name in names & self.names.keys():
            self.names[name] = UNKNOWN


def names_bound_in(nodes: Sequence[ast.AST]) -> frozenset[str]:
    """Return the names that statements bind, also in their expressions, but not inside the functions among them."""
    found = set[str]()
    left: list[Any] = list(nodes)  # nodes, and what else their fields hold
    while left:
        node = left.pop()
        kind: type = type(node)
        if kind is ast.Name:  # most nodes are names
            if type(node.ctx) is not ast.Load:
                found.add(node.id)
            continue
        if kind in _BINDING:
            found.update(_bound_by(node))
        if kind in _INNER:
            left += getattr(node, "decorator_list", ())
            continue
        for name in _fields_of(kind):
            value = getattr(node, name, None)
            if type(value) is list:
                left += value
            elif value is not None:
                left.append(value)
    return frozenset(found)


@cache
def _fields_of(kind: type) -> tuple[str, ...]:
    """Return the fields in which nodes of a kind may have others; none for what is no node."""
    return tuple(name for name in getattr(kind, "_fields", ()) if name not in _WITHOUT_NAMES)


def _bound_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ExceptHandler | ast.MatchStar | ast.MatchAs) and node.name:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest


def declared_elsewhere(nodes: Sequence[ast.stmt]) -> frozenset[str]:
    """Return the names that these statements, or functions among them, declare global or nonlocal."""
    found = (node for node in statements_in(nodes) if isinstance(node, ast.Global | ast.Nonlocal))
    return frozenset(name for node in found for name in node.names)


def statements_in(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    """Yield all statements, also inside functions and classes, and none of their expressions."""
    left: list[ast.AST] = list(body)
    while left:
        node = left.pop()
        yield node
        for name in node._fields:
            value = getattr(node, name, None)
            if (
                isinstance(value, list)
                and value
                and isinstance(value[0], ast.stmt | ast.excepthandler | ast.match_case)
            ):
                left += value


class Names:
    """The names that the statements of a module bind or declare; computed once, because loops and calls ask often."""

    def __init__(self, tree: ast.Module) -> None:
        self.declared: frozenset[str] = frozenset()  #: global or nonlocal, anywhere in the module
        self.imports: list[ast.Import | ast.ImportFrom] = []  #: all, also inside functions
        for node in statements_in(tree.body):
            if isinstance(node, ast.Global | ast.Nonlocal):
                self.declared |= {*node.names}
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self.imports.append(node)
        self._bound: dict[ast.AST, frozenset[str]] = {}
        self._declared: dict[ast.AST, frozenset[str]] = {}

    def bound_in(self, node: ast.AST, parts: Sequence[ast.AST]) -> frozenset[str]:
        """Return the names that these parts of a node bind; for a node, these are always the same parts."""
        found = self._bound.get(node)
        if found is None:
            found = self._bound[node] = names_bound_in(parts)
        return found

    def declared_in(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> frozenset[str]:
        if not self.declared:
            return frozenset()
        found = self._declared.get(node)
        if found is None:
            found = self._declared[node] = declared_elsewhere(node.body)
        return found


def parameters_of(node: Function) -> list[str]:
    """Return the names of all parameters: first the positional ones."""
    given = node.args
    starred = [argument for argument in (given.vararg, given.kwarg) if argument]
    return [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, *starred)]
