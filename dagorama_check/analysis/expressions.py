"""Expressions other than calls: what their values are, and which of them need the value of a promise."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from dagorama_check.analysis.classes import ClassRef, Function, Instance
from dagorama_check.analysis.displays import Displays
from dagorama_check.analysis.frame import NESTING, Body
from dagorama_check.analysis.values import (
    CONTAINERS,
    PLAIN,
    UNKNOWN,
    Awaitable,
    Fixed,
    Items,
    Library,
    Promise,
    Value,
    item_of,
    join,
    join_all,
    row,
)

_SIGNS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.MatMult: "@", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Pow: "**", ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.In: "in",
    ast.NotIn: "not in", ast.USub: "-", ast.UAdd: "+", ast.Invert: "~",
}  # fmt: skip
#: Operators that libraries give other meanings, so that an unknown operand may accept anything.
_BORROWED = (ast.LShift, ast.RShift, ast.BitAnd, ast.BitOr, ast.BitXor)
_CONVERSION = re.compile(r"%(?:%|(\([^)]*\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?[hlL]?([diouxXeEfFgGcrsa]))")
_AS_TEXT = (-1, ord("s"))


class Expressions(Displays):
    """Analyzes expressions."""

    def value_of(self, node: ast.expr) -> Value:
        look: Callable[[ast.expr], Value] = getattr(self, f"_{type(node).__name__.lower()}", self._others)
        if self.module.nesting >= NESTING:
            return UNKNOWN
        self.module.nesting += 1
        try:
            return look(node)
        finally:
            self.module.nesting -= 1

    def _others(self, node: ast.expr) -> Value:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value_of(child)
        return UNKNOWN

    def _constant(self, node: ast.Constant) -> Value:
        return PLAIN

    def _name(self, node: ast.Name) -> Value:
        found = self.scope.find(node.id)
        return Library(f"builtins.{node.id}") if found is None else found

    def _attribute(self, node: ast.Attribute) -> Value:
        return self.attribute(node, self.value_of(node.value))

    # --- texts

    def _joinedstr(self, node: ast.JoinedStr) -> Value:
        for part in node.values:
            self.value_of(part)
        return PLAIN

    def _formattedvalue(self, node: ast.FormattedValue) -> Value:
        value = self.value_of(node.value)
        if node.conversion in _AS_TEXT:
            self.misuse("DAG002", node.value, value, "the f-string")
        if node.format_spec is not None:
            self.value_of(node.format_spec)
        return PLAIN

    def _formatted(self, node: ast.BinOp, template: str, value: Value) -> Value:
        """Analyze `template % value`."""
        found = [match for match in _CONVERSION.finditer(template) if match[0] != "%%"]
        if any(match[1] or "*" in (match[2], match[3]) for match in found):
            return PLAIN
        values = value.items if isinstance(value, Fixed) and value.kind == "tuple" else (value,)
        for match, each in zip(found, values, strict=False):
            if match[4] not in "ra" and self.misuse("DAG002", node, each, f"`{match[0]}` in the text"):
                break
        return PLAIN

    # --- operators

    def _binop(self, node: ast.BinOp) -> Value:
        left, right = self.value_of(node.left), self.value_of(node.right)
        if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
            return self._formatted(node, node.left.value, right)
        return self.operation(node, node.op, left, right)

    def operation(self, node: ast.expr | ast.stmt, operator: ast.operator, left: Value, right: Value) -> Value:
        """Return the result of an operator."""
        operands = (left, right)
        use = f"the operator `{_SIGNS[type(operator)]}`"
        if not (isinstance(operator, _BORROWED) and UNKNOWN in operands):
            for value in operands:
                if self.misuse("DAG002", node, value, use):
                    return UNKNOWN
        if isinstance(operator, ast.Add) and isinstance(left, Fixed | Items) and isinstance(right, Fixed | Items):
            return _together(left, right)
        if isinstance(operator, ast.Mult) and isinstance(left, Fixed | Items):
            return Items(left.kind, item_of(left))
        return PLAIN if operands == (PLAIN, PLAIN) else UNKNOWN

    def _unaryop(self, node: ast.UnaryOp) -> Value:
        value = self.value_of(node.operand)
        if isinstance(node.op, ast.Not):
            self.misuse("DAG001", node, value, "`not`")
        else:
            self.misuse("DAG002", node, value, f"the operator `{_SIGNS[type(node.op)]}`")
        return PLAIN

    def _boolop(self, node: ast.BoolOp) -> Value:
        word = "and" if isinstance(node.op, ast.And) else "or"
        found, is_misused = [], False
        for index, part in enumerate(node.values):
            self.conditions += bool(index)
            value = self.value_of(part)
            if index < len(node.values) - 1:
                is_misused |= self.misuse("DAG001", part, value, f"`{word}`")
            self.conditions -= bool(index)
            found.append(value)
        return UNKNOWN if is_misused else join_all(found)

    def _compare(self, node: ast.Compare) -> Value:
        left = self.value_of(node.left)
        for operator, part in zip(node.ops, node.comparators, strict=True):
            right = self.value_of(part)
            self._comparison(node, operator, left, right)
            left = right
        return PLAIN

    def _comparison(self, node: ast.Compare, operator: ast.cmpop, left: Value, right: Value) -> None:
        use = f"the comparison `{_SIGNS.get(type(operator), 'is')}`"
        if isinstance(operator, ast.Is | ast.IsNot):
            return
        if isinstance(operator, ast.In | ast.NotIn):
            if not self.misuse("DAG002", node, right, use):
                self._membership(node, left, right, use)
        elif not isinstance(operator, ast.Eq | ast.NotEq):
            _ = self.misuse("DAG002", node, left, use) or self.misuse("DAG002", node, right, use)
        elif _is_no_promise(right):
            self.misuse("DAG002", node, left, use)
        elif _is_no_promise(left):
            self.misuse("DAG002", node, right, use)

    def _membership(self, node: ast.Compare, left: Value, right: Value, use: str) -> None:
        """Analyze `left in right`, for lists, tuples and ranges, whose items are compared one by one."""
        if not isinstance(right, Items | Fixed) or right.kind not in ("list", "range", "tuple"):
            return
        items = right.items if isinstance(right, Fixed) else (right.item,)
        if items and all(_is_no_promise(item) for item in items):
            self.misuse("DAG002", node, left, use)
        elif items and _is_no_promise(left) and isinstance(items[0], Promise):
            self.misuse("DAG002", node, items[0], use)

    # --- conditions and bindings

    def _ifexp(self, node: ast.IfExp) -> Value:
        self.condition(node.test, "the condition of `if`")
        with self.maybe():
            return join(self.value_of(node.body), self.value_of(node.orelse))

    def _namedexpr(self, node: ast.NamedExpr) -> Value:
        value = self.value_of(node.value)
        self.bind(node.target, value)
        return value

    # --- functions and coroutines

    def _lambda(self, node: ast.Lambda) -> Value:
        function = Function(node, self.scope)
        self.add_body(function)
        return function

    def add_body(self, function: Function) -> None:
        """Put a function on the list of functions that are analyzed by themselves."""
        if not self.is_followed:
            decorator = function.decorator
            around = self.body
            is_node = decorator is not None or (around is not None and around.is_node)
            is_streaming = decorator.is_streaming if decorator else around is not None and around.is_streaming
            self.module.bodies.append(Body(function, is_node, is_streaming))

    def _await(self, node: ast.Await) -> Value:
        value = self.value_of(node.value)
        if isinstance(value, Awaitable):
            return value.of
        if isinstance(value, Promise):
            self.misuse("DAG006", node, value, "`await`")
        elif isinstance(value, Fixed) and value.items and isinstance(value.items[0], Instance):
            name = value.items[0].cls.name
            self.report("DAG006", node, f"`await` gets `(instance, promise)`: the entry point of `{name}` is not async")
        return UNKNOWN

    def _yield(self, node: ast.Yield) -> Value:
        self.yielded.append(self.value_of(node.value) if node.value else PLAIN)
        return UNKNOWN

    def _yieldfrom(self, node: ast.YieldFrom) -> Value:
        self.yielded.append(item_of(self.iterated(node, self.value_of(node.value), "`yield from`")))
        return UNKNOWN


def _together(left: Value, right: Value) -> Value:
    if isinstance(left, Fixed) and isinstance(right, Fixed) and left.kind == right.kind:
        return row(left.kind, left.items + right.items)
    kind = left.kind if isinstance(left, Fixed | Items) else "list"
    return Items(kind, join(item_of(left), item_of(right)))


def _is_no_promise(value: Value) -> bool:
    """Return whether comparing a promise with this raises."""
    return value == PLAIN or isinstance(value, (*CONTAINERS, ClassRef, Function))
