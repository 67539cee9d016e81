"""Attributes of `self` that a node sets and that other nodes read: each run has its own, so that the value is lost."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dagorama_check.analysis.classes import Class, Function
from dagorama_check.analysis.scopes import parameters_of
from dagorama_check.analysis.values import CONTAINERS, PLAIN

#: Methods by which a class decides itself what setting an attribute does.
_SETS_ITSELF = {"__getattr__", "__getattribute__", "__setattr__"}
#: The reason.
_OWN_SELF = "each run has a `self` of its own"


class Uses:
    """The uses of attributes of the first parameter in a method."""

    def __init__(self, function: ast.FunctionDef | ast.AsyncFunctionDef, own: str) -> None:
        self.reads: set[str] = set()
        self.writes: list[ast.Attribute] = []
        self.increments: set[str] = set()
        self.passes_itself_on = False
        self._own = own
        inner = {id(node.value) for node in ast.walk(function) if isinstance(node, ast.Attribute)}
        for node in ast.walk(function):
            self._note(node, inner)

    def _note(self, node: ast.AST, inner: set[int]) -> None:
        if isinstance(node, ast.Name) and node.id == self._own and id(node) not in inner:
            self.passes_itself_on = True
        elif isinstance(node, ast.keyword) and node.arg in ("greedy_execution", None):
            self.passes_itself_on = True  # the other method may run here, with this object
        elif isinstance(node, ast.Attribute) and self._is_of_self(node):
            if isinstance(node.ctx, ast.Load):
                self.reads.add(node.attr)
            elif isinstance(node.ctx, ast.Store):
                self.writes.append(node)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
            self.increments.add(node.target.attr)

    def _is_of_self(self, node: ast.Attribute) -> bool:
        return isinstance(node.value, ast.Name) and node.value.id == self._own


def lost_state(cls: Class, known: dict[ast.AST, Uses]) -> Iterator[tuple[ast.Attribute, str]]:
    """Yield the assignments to attributes of `self` whose value certainly gets lost, and say why.

    `known` has the uses of the methods that were analyzed before, for other classes of a family.
    """
    if not cls.is_definition or not cls.is_known:
        return
    family = list(cls.family())
    if any(name in each.namespace for each in family for name in _SETS_ITSELF):
        return
    state = _State(family, known)
    for method in cls.methods():
        if method.decorator is not None and not isinstance(method.node, ast.Lambda):
            yield from state.lost_in(method)


class _State:
    """The attributes of a family of classes."""

    def __init__(self, family: list[Class], known: dict[ast.AST, Uses]) -> None:
        self._family = family
        self._known = known
        self._methods = [
            method for each in family for method in each.methods() if not isinstance(method.node, ast.Lambda)
        ]

    def lost_in(self, method: Function) -> Iterator[tuple[ast.Attribute, str]]:
        uses = self._uses_of(method)
        if uses.passes_itself_on:
            return
        for written in uses.writes:
            name = written.attr
            if name in uses.reads or not self._is_plain(name) or self._is_read_by_helper(name):
                continue
            reader = next((other for other in self._nodes_but(method) if name in self._uses_of(other).reads), None)
            if reader is not None:
                yield written, f"`self.{name}` is set in a node, and `{reader.name}` does not see it: {_OWN_SELF}"
            elif name in uses.increments:
                yield written, f"`self.{name}` is changed in a node, and the change is lost: {_OWN_SELF}"

    def _uses_of(self, method: Function) -> Uses:
        assert not isinstance(method.node, ast.Lambda)
        found = self._known.get(method.node)
        if found is None:
            names = parameters_of(method.node)
            found = self._known[method.node] = Uses(method.node, names[0] if names else "")
        return found

    def _nodes_but(self, method: Function) -> Iterator[Function]:
        return (other for other in self._methods if other.decorator and other.node is not method.node)

    def _is_plain(self, name: str) -> bool:
        """Return whether no class decides what setting this attribute does, as a property does."""
        found = [each.namespace[name] for each in self._family if name in each.namespace]
        return all(value == PLAIN or isinstance(value, CONTAINERS) for value in found)

    def _is_read_by_helper(self, name: str) -> bool:
        """Return whether a method without the decorator, which runs in the same node, reads the attribute."""
        return any(method.decorator is None and name in self._uses_of(method).reads for method in self._methods)
