"""Methods of lists, dicts and texts."""

from __future__ import annotations

import ast
from string import Formatter

from dagorama_check.analysis.bindings import Bindings
from dagorama_check.analysis.values import (
    NOTHING,
    PLAIN,
    UNKNOWN,
    Arguments,
    Fixed,
    Items,
    Table,
    Value,
    item_of,
    join,
    join_all,
)  # fmt: skip

#: Methods of lists that return nothing.
_CHANGES = {"append", "extend", "insert", "remove", "clear", "reverse", "sort", "add", "discard", "update"}


class DataMethods(Bindings):
    """Analyzes calls of methods of containers and of literals."""

    def method_of_data(self, node: ast.Call, method: ast.Attribute, base: Value, arguments: Arguments) -> Value:
        """Return the result of a method of a container or of a literal."""
        if isinstance(method.value, ast.Constant):
            return self._method_of_text(node, method, arguments)
        if isinstance(base, Table):
            return self._method_of_dict(method, base, arguments)
        if method.attr in _CHANGES and isinstance(base, Fixed | Items):
            self._change(node, method, base, arguments)
            return PLAIN
        if method.attr == "pop":
            return item_of(base)
        return base if method.attr == "copy" else UNKNOWN

    def _change(self, node: ast.Call, method: ast.Attribute, base: Fixed | Items, arguments: Arguments) -> None:
        last = arguments.positional[-1] if arguments.positional else NOTHING
        added = last if method.attr in ("append", "add", "insert") else NOTHING
        if method.attr in ("extend", "update"):
            if self.misuse("DAG005", node, last, f"`{method.attr}()`"):
                return
            added = item_of(last)
        if isinstance(method.value, ast.Name):
            self.scope.bind(method.value.id, Items(base.kind, join(item_of(base), added)))

    def _method_of_dict(self, method: ast.Attribute, base: Table, arguments: Arguments) -> Value:
        if method.attr == "values":
            return Items("iterator", base.item)
        if method.attr == "items":
            return Items("iterator", Fixed("tuple", (PLAIN, base.item)))
        if method.attr == "keys":
            return Items("iterator", UNKNOWN)
        if method.attr in ("update", "setdefault") and isinstance(method.value, ast.Name):
            added = arguments.at(0)
            item = added.item if isinstance(added, Table) and method.attr == "update" else UNKNOWN
            self.scope.bind(method.value.id, Table(join_all([base.item, item, *arguments.keywords.values()])))
        return base if method.attr == "copy" else UNKNOWN

    def _method_of_text(self, node: ast.Call, method: ast.Attribute, arguments: Arguments) -> Value:
        text = method.value.value if isinstance(method.value, ast.Constant) else None
        first = arguments.at(0)
        if not isinstance(text, str):
            return UNKNOWN
        if method.attr == "join":
            _ = self.misuse("DAG005", node, first, "`join()`") or self.misuse_of_items(
                "DAG005", node, first, "`join()`"
            )
        elif method.attr == "format" and not arguments.is_open:
            self._format(node, text, arguments)
        return PLAIN

    def _format(self, node: ast.Call, text: str, arguments: Arguments) -> None:
        """Analyze `text.format(...)`: the fields that show the text of a promise."""
        try:
            fields = [(name, conversion) for _, name, _, conversion in Formatter().parse(text) if name is not None]
        except ValueError:  # it raises when it runs, with or without promises
            return
        for index, (name, conversion) in enumerate(fields):
            key = name or f"{index}"
            value = arguments.at(int(key)) if key.isdecimal() else arguments.keywords.get(key, UNKNOWN)
            if conversion in (None, "s") and self.misuse("DAG002", node, value, "the text in `format()`"):
                return
