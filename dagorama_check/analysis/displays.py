"""Lists, dicts and other displays, their items, and comprehensions."""

from __future__ import annotations

import ast

from dagorama_check.analysis.calls import Calls
from dagorama_check.analysis.classes import ClassRef
from dagorama_check.analysis.values import (
    NOTHING,
    PLAIN,
    UNKNOWN,
    Fixed,
    Items,
    Table,
    Value,
    item_of,
    join,
    join_all,
    row,
)


class Displays(Calls):
    """Analyzes expressions that make containers, and expressions that take items out."""

    def condition(self, node: ast.expr, use: str) -> None:
        """Analyze an expression whose truth decides."""
        self.misuse("DAG001", node, self.value_of(node), use)

    def _list(self, node: ast.List) -> Value:
        return self._display("list", node.elts)

    def _tuple(self, node: ast.Tuple) -> Value:
        return self._display("tuple", node.elts)

    def _set(self, node: ast.Set) -> Value:
        return Items("set", item_of(self._display("list", node.elts)))

    def _display(self, kind: str, elements: list[ast.expr]) -> Value:
        items: list[Value] = []
        is_open = False
        for element in elements:
            if isinstance(element, ast.Starred):
                value = self.iterated(element, self.value_of(element.value), "`*`")
                is_open |= not isinstance(value, Fixed)
                items += value.items if isinstance(value, Fixed) else [item_of(value)]
            else:
                items.append(self.value_of(element))
        return Items(kind, join_all(items)) if is_open else row(kind, tuple(items))

    def _dict(self, node: ast.Dict) -> Value:
        item: Value = NOTHING
        for key, value in zip(node.keys, node.values, strict=True):
            found = self.value_of(value)
            if key is None:
                self.misuse("DAG004", value, found, "`**`")
                found = found.item if isinstance(found, Table) else PLAIN if found == PLAIN else UNKNOWN
            else:
                self.value_of(key)
            item = join(item, found)
        return Table(item)

    def _subscript(self, node: ast.Subscript) -> Value:
        base, index = self.value_of(node.value), self.value_of(node.slice)
        if self.misuse("DAG003", node, base, "taking an item"):
            return UNKNOWN
        if isinstance(base, ClassRef):
            return base
        if isinstance(node.slice, ast.Slice):
            return Items(base.kind, item_of(base)) if isinstance(base, Fixed | Items) else base
        return _item(base, node.slice, index)

    def _listcomp(self, node: ast.ListComp) -> Value:
        return Items("list", self._each(node.generators, [node.elt]))

    def _setcomp(self, node: ast.SetComp) -> Value:
        return Items("set", self._each(node.generators, [node.elt]))

    def _generatorexp(self, node: ast.GeneratorExp) -> Value:
        return Items("generator", self._each(node.generators, [node.elt]))

    def _dictcomp(self, node: ast.DictComp) -> Value:
        return Table(self._each(node.generators, [node.key, node.value]))

    def _each(self, generators: list[ast.comprehension], results: list[ast.expr]) -> Value:
        """Return what a comprehension yields: the value of the last of `results`."""
        names = self.module.names.bound_in(generators[0], [generator.target for generator in generators])
        before = {name: self.scope.names.get(name) for name in names}
        first = self.iterated(generators[0].iter, self.value_of(generators[0].iter), "iteration")
        with self.maybe():
            self._bind_each(generators, first)
            found = [self.value_of(result) for result in results]
        for name, value in before.items():
            self.scope.names.pop(name, None)
            if value is not None:
                self.scope.names[name] = value
        return found[-1]

    def _bind_each(self, generators: list[ast.comprehension], first: Value) -> None:
        """Analyze the parts of a comprehension with `for`; the first is iterated in any case, and is known already."""
        for index, generator in enumerate(generators):
            given = generator.iter
            value = self.iterated(given, self.value_of(given), "iteration") if index else first
            self.bind(generator.target, UNKNOWN if generator.is_async else item_of(value))
            for test in generator.ifs:
                self.condition(test, "the condition of `if`")


def _item(base: Value, index_node: ast.expr, index: Value) -> Value:
    if isinstance(base, Fixed) and isinstance(index_node, ast.Constant) and isinstance(index_node.value, int):
        return base.items[index_node.value] if -len(base.items) <= index_node.value < len(base.items) else UNKNOWN
    found = base.item if isinstance(base, Table) else item_of(base)
    return UNKNOWN if found == NOTHING else found
