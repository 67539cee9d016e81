"""Assignments, loops and unpacking, which give variables their values; and attributes of values."""

from __future__ import annotations

import ast

from dagorama_check.analysis.classes import Bound, Class, ClassRef, Definition, Function, Instance, Starter, Super
from dagorama_check.analysis.frame import Frame
from dagorama_check.analysis.libraries import OF_COROUTINES, OF_PROMISES, own_name
from dagorama_check.analysis.values import (
    PLAIN,
    UNKNOWN,
    Awaitable,
    Decorator,
    Fixed,
    Items,
    Library,
    Promise,
    Table,
    Value,
    item_of,
    join,
)


class Bindings(Frame):
    """Analyzes targets and attributes."""

    # --- targets

    def bind(self, target: ast.expr, value: Value) -> None:
        """Analyze an assignment of a value to a target."""
        if isinstance(target, ast.Name):
            self.scope.bind(target.id, value)
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target, value)
        elif isinstance(target, ast.Starred):
            self.bind(target.value, value)
        elif isinstance(target, ast.Attribute):
            self.misuse("DAG003", target, self.value_of(target.value), f"setting the attribute `{target.attr}`")
        elif isinstance(target, ast.Subscript):
            self._set_item(target, value)

    def _unpack(self, target: ast.Tuple | ast.List, value: Value) -> None:
        found = self.iterated(target, value, "unpacking")
        parts = target.elts
        has_star = any(isinstance(part, ast.Starred) for part in parts)
        if isinstance(found, Fixed) and len(found.items) == len(parts) and not has_star:
            for part, item in zip(parts, found.items, strict=True):
                self.bind(part, item)
            return
        item = item_of(found)
        for part in parts:
            self.bind(part, Items("list", item) if isinstance(part, ast.Starred) else item)

    def _set_item(self, target: ast.Subscript, value: Value) -> None:
        base = self.value_of(target.value)
        self.value_of(target.slice)
        if self.misuse("DAG003", target, base, "setting an item") or not isinstance(target.value, ast.Name):
            return
        if isinstance(base, Table):
            self.scope.bind(target.value.id, Table(join(base.item, value)))
        elif isinstance(base, Items | Fixed):
            self.scope.bind(target.value.id, Items(base.kind, join(item_of(base), value)))

    # --- iteration

    def iterated(self, node: ast.expr | ast.stmt, value: Value, use: str) -> Value:
        """Report if a value that is iterated is a promise; return it, or UNKNOWN."""
        return UNKNOWN if self.misuse("DAG004", node, value, use) else value

    # --- attributes

    def attribute(self, node: ast.expr, value: Value, name: str = "") -> Value:
        """Return an attribute of a value; `node` is the expression that reads it."""
        name = name or (node.attr if isinstance(node, ast.Attribute) else "")
        if isinstance(value, Promise):
            if name not in OF_PROMISES and not name.startswith("_"):
                self.misuse("DAG003", node, value, f"the attribute `{name}`")
            return UNKNOWN
        if isinstance(value, Awaitable):
            if value.maker and name not in OF_COROUTINES and not name.startswith("_"):
                self.misuse("DAG003", node, value, f"the attribute `{name}`")
            return UNKNOWN
        if isinstance(value, Library):
            return self._of_library(value, name)
        if isinstance(value, Decorator):
            kinds = {"syncfn": "sync", "asyncfn": "async"}
            return Decorator(kinds[name], value.is_streaming) if name in kinds else UNKNOWN
        return self._of_object(value, name)

    def _of_library(self, value: Library, name: str) -> Value:
        found = self.module.export_of(value.name, name)
        if found is not None:
            return found
        if own_name(value) == "dagorama" and name in ("syncfn", "asyncfn"):
            return UNKNOWN
        return Library(f"{value.name}.{name}")

    def _of_object(self, value: Value, name: str) -> Value:
        if isinstance(value, Instance | Definition):
            return self._of_receiver(value.cls, value, name)
        if isinstance(value, Super):
            found = value.cls.find(name, skip_own=True)
            return Bound(found, value.receiver) if isinstance(found, Function) and not found.is_static else UNKNOWN
        if isinstance(value, ClassRef):
            if name == "attach" and value.cls.is_definition:
                return Starter(value.cls, is_attached=True)
            return value.cls.find(name) or UNKNOWN
        if isinstance(value, Function):
            return UNKNOWN
        return PLAIN if value == PLAIN else UNKNOWN

    def _of_receiver(self, cls: Class, receiver: Value, name: str) -> Value:
        found = cls.find(name)
        if not isinstance(found, Function):
            return PLAIN if found == PLAIN else UNKNOWN
        if found.decorator is None and isinstance(receiver, Instance) and cls.is_overridden(name):
            return UNKNOWN
        return found if found.is_static else Bound(found, receiver)
