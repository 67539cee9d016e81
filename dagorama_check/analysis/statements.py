"""Statements: what they do to variables, and which of them need the value of a promise."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial

from dagorama_check.analysis.definitions import Definitions
from dagorama_check.analysis.frame import NESTING, merged
from dagorama_check.analysis.libraries import ERRORS_OF_MISUSE, EXPECTS_ERRORS
from dagorama_check.analysis.matching import compared
from dagorama_check.analysis.values import (
    PLAIN,
    UNKNOWN,
    Awaitable,
    Fixed,
    Items,
    Stuck,
    Table,
    Value,
    item_of,
    join,
)


class Interpreter(Definitions):
    """Analyzes statements, in the order in which they run."""

    def run(self, body: list[ast.stmt]) -> bool:
        if self.module.nesting >= NESTING:
            return True
        self.module.nesting += 1
        try:
            return self._run(body)
        finally:
            self.module.nesting -= 1

    def _run(self, body: list[ast.stmt]) -> bool:
        for statement in body:
            self.module.budget -= self.is_followed
            look: Callable[[ast.stmt], bool | None] | None = getattr(self, f"_{type(statement).__name__.lower()}", None)
            if look is not None and look(statement) is False:
                return False
        return True

    # --- simple statements

    def _expr(self, node: ast.Expr) -> None:
        value = self.value_of(node.value)
        if isinstance(value, Awaitable) and value.maker:
            self.report("DAG006", node, f"the coroutine of `{value.maker}` is not awaited, so that it creates no node")

    def _assign(self, node: ast.Assign) -> None:
        value = self.value_of(node.value)
        for target in node.targets:
            self.bind(target, value)

    def _annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.bind(node.target, self.value_of(node.value))

    def _augassign(self, node: ast.AugAssign) -> None:
        target = node.target
        if isinstance(target, ast.Name):
            before: Value = self.scope.find(target.id) or UNKNOWN
        elif isinstance(target, ast.Attribute):
            before = self.attribute(target, self.value_of(target.value))
        else:
            before = self._subscript(target)
        value = self.value_of(node.value)
        if isinstance(before, Items | Fixed) and isinstance(node.op, ast.Add) and before.kind == "list":
            value = self.iterated(node, value, "the operator `+=`")
            after: Value = Items("list", join(item_of(before), item_of(value)))
        else:
            after = self.operation(node, node.op, before, value)
        if isinstance(target, ast.Name):
            self.scope.bind(target.id, after)

    def _delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Attribute | ast.Subscript):
                value = self.value_of(target.value)
                what = "an attribute" if isinstance(target, ast.Attribute) else "an item"
                self.misuse("DAG003", target, value, f"deleting {what}")
            elif isinstance(target, ast.Name):
                self.scope.bind(target.id, UNKNOWN)

    def _return(self, node: ast.Return) -> bool:
        value = self.value_of(node.value) if node.value else PLAIN
        if self.body is not None and self.body.function.decorator is not None:
            self._result_of_node(node, value)
        self.returned.append(value)
        return self._leave()

    def _result_of_node(self, node: ast.Return, value: Value, depth: int = 3) -> None:
        """Report a coroutine in the result of a node, which cannot be pickled."""
        if isinstance(value, Awaitable) and value.maker:
            text = f"the result of a node is a coroutine: the call of `{value.maker}` is not awaited"
            self.report("DAG006", node, text)
        elif isinstance(value, Fixed | Items | Table) and depth:
            for part in value.items if isinstance(value, Fixed) else (value.item,):
                self._result_of_node(node, part, depth - 1)

    def _raise(self, node: ast.Raise) -> bool:
        for part in (node.exc, node.cause):
            if part is not None:
                self.value_of(part)
        return self._leave()

    def _leave(self) -> bool:
        self.may_have_left = True
        return False

    def _assert(self, node: ast.Assert) -> None:
        self.condition(node.test, "`assert`")
        if node.msg is not None:
            with self.maybe():
                self.value_of(node.msg)

    def _break(self, node: ast.Break) -> bool:
        if self.jumps:
            self.jumps[-1].append(self.scope.names)
        return self._leave()

    _continue = _break

    # --- branches

    def _if(self, node: ast.If) -> bool:
        self.condition(node.test, "the condition of `if`")
        return self.alternatives([partial(self.run, node.body), partial(self.run, node.orelse)])

    def _while(self, node: ast.While) -> bool:
        # The condition is analyzed twice: as it is before the first round, and before any other.
        self.condition(node.test, "the condition of `while`")
        self.scope.forget(self.module.names.bound_in(node, [node]))
        self.condition(node.test, "the condition of `while`")
        self._loop(node.body, node.orelse)
        endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        return not endless or any(isinstance(part, ast.Break) for part in ast.walk(node))

    def _for(self, node: ast.For | ast.AsyncFor) -> None:
        value = self.iterated(node.iter, self.value_of(node.iter), "iteration")
        before = dict(self.scope.names)
        self.scope.forget(self.module.names.bound_in(node, [*node.body, node.target]))
        with self.maybe():
            self.bind(node.target, UNKNOWN if isinstance(node, ast.AsyncFor) else item_of(value))
        self._loop(node.body, node.orelse, before)

    _asyncfor = _for

    def _loop(self, body: list[ast.stmt], orelse: list[ast.stmt], before: dict[str, Value] | None = None) -> None:
        """Analyze the body of a loop, which may run any number of times, and its `else`."""
        ways = [before if before is not None else dict(self.scope.names)]
        self.jumps.append([])
        self.scope.names = dict(self.scope.names)
        with self.maybe():
            if self.run(body):
                ways.append(self.scope.names)
        ways += self.jumps.pop()
        self.scope.names = merged(ways)
        with self.maybe():
            self.run(orelse)

    def _try(self, node: ast.Try) -> bool:
        bound = self.module.names.bound_in(node, node.body)
        before = dict(self.scope.names)
        with self.silent(any(_expects(handler.type) for handler in node.handlers)):
            reached = self.run(node.body)
        after = self.scope.names
        self.scope.names = {**before, **dict.fromkeys(bound & (after.keys() | before.keys()), UNKNOWN)}
        handled = self.scope.names
        ways: list[Callable[[], bool]] = [partial(self._handler, handler) for handler in node.handlers]
        reached = self.alternatives([partial(self._after_try, node, after, reached), *ways])
        if not reached:
            self.scope.names = handled
        return self.run(node.finalbody) and reached

    _trystar = _try

    def _after_try(self, node: ast.Try, after: dict[str, Value], reached: bool) -> bool:
        self.scope.names = after
        return reached and self.run(node.orelse)

    def _handler(self, handler: ast.ExceptHandler) -> bool:
        if handler.name:
            self.scope.bind(handler.name, UNKNOWN)
        return self.run(handler.body)

    def _with(self, node: ast.With | ast.AsyncWith) -> bool:
        word = "`async with`" if isinstance(node, ast.AsyncWith) else "`with`"
        expects = False
        for item in node.items:
            expects |= _expects_errors(item.context_expr)
            value = self.value_of(item.context_expr)
            self.misuse("DAG003", item.context_expr, value, word)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, value if isinstance(value, Stuck) else UNKNOWN)
        before = dict(self.scope.names)
        with self.silent(expects):
            reached = self.run(node.body)
        if expects:
            self.scope.names = merged([self.scope.names, before])
        return reached or expects

    _asyncwith = _with

    def _match(self, node: ast.Match) -> bool:
        subject = self.value_of(node.subject)
        cases = [case.pattern for case in node.cases]
        if (needed := compared(cases, subject)) is not None:
            self.misuse("DAG001", node.subject, needed, "`match`")
        ways = [partial(self._case, case) for case in node.cases]
        return self.alternatives([*ways, lambda: True])

    def _case(self, case: ast.match_case) -> bool:
        for name in self.module.names.bound_in(case, [case.pattern]):
            self.scope.bind(name, UNKNOWN)
        if case.guard is not None:
            self.condition(case.guard, "the condition of `case`")
        return self.run(case.body)


def _expects(kind: ast.expr | None) -> bool:
    """Return whether a handler names an error that a misuse raises."""
    parts = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(_last_name(part) in ERRORS_OF_MISUSE for part in parts if part is not None)


def _expects_errors(node: ast.expr) -> bool:
    """Return whether a context manager expects that its block raises."""
    return isinstance(node, ast.Call) and _last_name(node.func) in EXPECTS_ERRORS


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
