"""One function, class or module while it is analyzed: its variables, and what is found in it.

The rule: something is reported only if it certainly goes wrong when the code runs.
"""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from dagorama_check.analysis.classes import Class, Function
from dagorama_check.analysis.scopes import Names, Scope
from dagorama_check.analysis.values import Awaitable, Promise, Value, item_of, join

#: Steps that following calls of functions may take in one module.
BUDGET = 50_000
#: Calls within calls that are followed.
DEEPEST = 4
#: Expressions within expressions, and blocks within blocks, that are analyzed.
NESTING = 100


class Sink(Protocol):
    """Where findings go."""

    def __call__(self, code: str, node: ast.expr | ast.stmt | ast.pattern, message: str, /) -> None: ...


class Body(NamedTuple):
    """A function that is still to be analyzed by itself."""

    function: Function
    is_node: bool  #: it is decorated, or inside of a function that is
    is_streaming: bool  #: what it creates starts while it still runs


class Followed(NamedTuple):
    """The result of following a call of a function."""

    value: Value
    uses: list[tuple[int, str]]  #: of promises among the arguments that need their values: the line, and which use


class Module(Protocol):
    """The module of a frame."""

    name: str
    sink: Sink
    bodies: list[Body]
    classes: list[Class]
    budget: int
    nesting: int
    names: Names
    results: dict[object, Followed] | None  #: of functions that were followed; None: they may still change

    def export_of(self, module: str, name: str) -> Value | None:
        """Return what a checked module exports under a name; None if the module is not checked."""
        ...

    def names_of(self, module: str) -> Mapping[str, Value] | None:
        """Return all that a checked module exports; None if it is not checked."""
        ...

    def absolute(self, module: str | None, level: int) -> str:
        """Return the full name of a module of an import."""
        ...


class Frame:
    """The state of analyzing a piece of code; subclasses know what statements and expressions do."""

    def __init__(self, module: Module, scope: Scope, body: Body | None = None, sink: Sink | None = None) -> None:
        self.module = module
        self.scope = scope
        self.body = body
        self.sink = sink or module.sink
        self.depth = 0  #: of calls that are followed
        self.following: tuple[Function, ...] = ()
        self.is_followed = False  #: it is analyzed for a caller, who alone is told
        self.returned: list[Value] = []
        self.yielded: list[Value] = []
        self.silence = 0  #: of blocks in which errors are expected
        self.conditions = 0  #: of blocks around this point that may be skipped
        self.may_have_left = False  #: a statement before this point may have left the function
        self.jumps: list[list[dict[str, Value]]] = []  #: for each loop, the variables at `break` and `continue`

    @abstractmethod
    def value_of(self, node: ast.expr) -> Value:
        """Analyze an expression, and return what is known of its value."""

    @abstractmethod
    def run(self, body: list[ast.stmt]) -> bool:
        """Analyze statements; return whether the code behind them can be reached."""

    @property
    def is_node(self) -> bool:
        return self.body is not None and self.body.is_node

    # --- reports

    def report(self, code: str, node: ast.expr | ast.stmt | ast.pattern, message: str) -> None:
        if not self.silence and not self.is_followed:
            self.sink(code, node, message)

    def misuse(self, code: str, node: ast.expr | ast.stmt | ast.pattern, value: Value, use: str) -> bool:
        """Report that something needs the value of a promise, if it is one; return whether it was reported.

        `use` is the beginning of a sentence, such as "the condition of `if`". For a coroutine the code is DAG006.
        """
        if isinstance(value, Promise):
            self._misuse_of_promise(code, node, value, use)
        elif isinstance(value, Awaitable) and value.maker:
            self.report("DAG006", node, f"{use} gets a coroutine: the call of `{value.maker}` is not awaited")
        else:
            return False
        return True

    def _misuse_of_promise(self, code: str, node: ast.expr | ast.stmt | ast.pattern, value: Promise, use: str) -> None:
        if not self.is_followed:
            text = f"{use} needs a value, and gets a promise of `{value.maker}`, made in line {value.line}"
            self.report(code, node, f"{text}: it raises PromiseMisuse")
        elif value.is_argument and not (self.conditions or self.may_have_left or self.silence):
            self.sink(code, node, use)

    def misuse_of_items(self, code: str, node: ast.expr | ast.stmt, value: Value, use: str) -> bool:
        """Report that something needs the values of the promises in a container, if it has some."""
        return self.misuse(code, node, item_of(value), f"{use}, for each item,")

    # --- branches

    @contextmanager
    def maybe(self) -> Iterator[None]:
        """Analyze something that may be skipped."""
        self.conditions += 1
        try:
            yield
        finally:
            self.conditions -= 1

    @contextmanager
    def silent(self, is_expected: bool) -> Iterator[None]:
        """Analyze something in which errors may be expected."""
        self.silence += is_expected
        try:
            yield
        finally:
            self.silence -= is_expected

    def alternatives(self, ways: list[Callable[[], bool]]) -> bool:
        """Analyze blocks of which one runs; return whether one of them reaches its end."""
        before, reached = self.scope.names, []
        for way in ways:
            self.scope.names = dict(before)
            with self.maybe():
                if way():
                    reached.append(self.scope.names)
        self.scope.names = merged(reached) if reached else dict(before)
        return bool(reached)


def merged(ways: list[dict[str, Value]]) -> dict[str, Value]:
    """Return what is known of variables after one of several ways."""
    found = dict(ways[0])
    for way in ways[1:]:
        for name, value in way.items():
            found[name] = join(found[name], value) if name in found else value
    return found
