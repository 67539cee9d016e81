"""Calls: of decorated methods, definitions, functions of the checked files, and libraries."""

from __future__ import annotations

import ast
from dataclasses import replace

from dagorama_check.analysis.classes import Bound, ClassRef, Definition, Function, Instance, Starter, Super
from dagorama_check.analysis.frame import DEEPEST, Body, Followed
from dagorama_check.analysis.library_calls import LibraryCalls
from dagorama_check.analysis.scopes import Scope, parameters_of
from dagorama_check.analysis.values import (
    CONTAINERS,
    PLAIN,
    UNKNOWN,
    Arguments,
    Awaitable,
    Decorator,
    Fixed,
    Items,
    Library,
    Promise,
    Stuck,
    Table,
    Value,
    as_argument,
    as_result,
    first_promise,
    item_of,
    join_all,
    made_at,
)

GREEDY = "greedy_execution"


class Calls(LibraryCalls):
    """Analyzes calls."""

    def _call(self, node: ast.Call) -> Value:
        function = node.func
        if isinstance(function, ast.Attribute):
            base = self.value_of(function.value)
            if isinstance(base, CONTAINERS) or isinstance(function.value, ast.Constant):
                return self.method_of_data(node, function, base, self._arguments(node))
            callee = self.attribute(function, base)
        else:
            callee = self.value_of(function)
        if isinstance(callee, Library) and callee.name == "builtins.super" and not node.args:
            return self._super()
        return self.called(node, callee, self._arguments(node))

    def _arguments(self, node: ast.Call) -> Arguments:
        positional: list[Value] = []
        keywords: dict[str, Value] = {}
        is_open = False
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                value = self.iterated(argument, self.value_of(argument.value), "`*`")
                is_open |= not isinstance(value, Fixed)
                positional += value.items if isinstance(value, Fixed) else [item_of(value)]
            else:
                positional.append(self.value_of(argument))
        for keyword in node.keywords:
            value = self.value_of(keyword.value)
            if keyword.arg is None:
                is_open = True
                self.misuse("DAG004", keyword.value, value, "`**`")
            else:
                keywords[keyword.arg] = value
        return Arguments(tuple(positional), keywords, is_open)

    def called(self, node: ast.Call, callee: Value, arguments: Arguments) -> Value:
        """Return the result of a call."""
        if self.misuse("DAG003", node, callee, "calling it"):
            return UNKNOWN
        if isinstance(callee, Library):
            return self.library_call(node, callee, arguments)
        if isinstance(callee, Decorator):
            return self._decorated(arguments.at(0), callee)
        if isinstance(callee, ClassRef):
            return Definition(callee.cls)
        if isinstance(callee, Definition | Starter):
            return self._started(node, callee)
        if isinstance(callee, Bound):
            return self._method_call(node, callee.function, callee.receiver, arguments)
        if isinstance(callee, Function):
            return self._function_call(node, callee, arguments)
        self.escape(node)
        return UNKNOWN

    def _super(self) -> Value:
        function = self.body.function if self.body else None
        if function is None or function.owner is None:
            return UNKNOWN
        names = parameters_of(function.node)
        receiver = self.scope.find(names[0]) if names else None
        return Super(function.owner, receiver) if isinstance(receiver, Instance | Definition) else UNKNOWN

    def escape(self, node: ast.Call) -> None:
        """Forget what is known of lists and dicts that are passed to a function that may change them."""
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            name = argument.value if isinstance(argument, ast.Starred) else argument
            if isinstance(name, ast.Name) and isinstance(self.scope.names.get(name.id), CONTAINERS):
                self.scope.bind(name.id, UNKNOWN)

    # --- definitions

    def _decorated(self, value: Value, decorator: Decorator) -> Value:
        return replace(value, decorator=decorator) if isinstance(value, Function) else UNKNOWN

    def _started(self, node: ast.Call, callee: Definition | Starter) -> Value:
        """Return the result of a call of a definition, of `start()` or of `attach()`."""
        cls = callee.cls
        if not cls.is_definition:
            return UNKNOWN
        is_attached = isinstance(callee, Starter) and callee.is_attached
        entry = cls.find("entrypoint")
        if not isinstance(entry, Function):
            return UNKNOWN
        instance = Instance(cls)
        if entry.decorator is not None:
            made: Value = Promise(entry.name, node.lineno, is_attached=is_attached)
        elif is_attached:
            made = UNKNOWN
        else:
            parameters = _filled(entry, Arguments((instance,), is_open=True))
            made = made_at(node.lineno, self._followed(entry, parameters).value)
        pair = Fixed("tuple", (instance, made))
        if is_attached:
            return pair
        if is_async_node(entry):
            return Awaitable(pair, entry.name, node.lineno)
        return Awaitable(Fixed("tuple", (instance, made.of))) if isinstance(made, Awaitable) else pair

    def _method_call(self, node: ast.Call, function: Function, receiver: Value, arguments: Arguments) -> Value:
        if function.decorator is None:
            return self._undecorated_call(node, function, replace_first(arguments, receiver))
        if isinstance(receiver, Definition):
            self._outside(node, function)
            return UNKNOWN
        return self._node_call(node, function, arguments)

    def _function_call(self, node: ast.Call, function: Function, arguments: Arguments) -> Value:
        if function.decorator is None:
            return self._undecorated_call(node, function, arguments)
        first = arguments.at(0)
        if isinstance(first, Instance):
            rest = replace(arguments, positional=arguments.positional[1:])
            return self._node_call(node, function, rest)
        if first != UNKNOWN and not arguments.is_open:
            self._outside(node, function)
        return UNKNOWN

    def _outside(self, node: ast.Call, function: Function) -> None:
        what = "on a definition" if function.owner and function.owner.is_definition else "without an instance"
        self.report("DAG010", node, f"`{function.name}` is decorated and called {what}: it raises NotInInstance")

    def _node_call(self, node: ast.Call, function: Function, arguments: Arguments) -> Value:
        """Return the promise of a new node, or the coroutine that creates it."""
        if GREEDY in arguments.keywords or arguments.is_open or GREEDY in parameters_of(function.node):
            greedy = next((keyword.value for keyword in node.keywords if keyword.arg == GREEDY), None)
            if not isinstance(greedy, ast.Constant) or greedy.value is not False:
                return UNKNOWN if greedy is not None or not _is_only_star(node) else self._made(node, function)
        for value in arguments.all():
            self._argument(node, function, value)
        return self._made(node, function)

    def _made(self, node: ast.Call, function: Function) -> Value:
        promise = Promise(function.name, node.lineno)
        return Awaitable(promise, function.name, node.lineno) if is_async_node(function) else promise

    def _argument(self, node: ast.Call, function: Function, value: Value, depth: int = 3) -> None:
        """Report an argument of a node that cannot be pickled."""
        if isinstance(value, Awaitable) and value.maker:
            text = f"an argument of `{function.name}` is a coroutine: the call of `{value.maker}` is not awaited"
            self.report("DAG006", node, text)
        elif isinstance(value, Stuck) or (isinstance(value, Items) and value.kind == "generator"):
            what = value.what if isinstance(value, Stuck) else "a generator"
            self.report("DAG009", node, f"an argument of `{function.name}` is {what}, which cannot be pickled")
        elif isinstance(value, Fixed | Items | Table) and depth:
            for part in value.items if isinstance(value, Fixed) else (value.item,):
                self._argument(node, function, part, depth - 1)

    # --- functions of the checked files

    def _undecorated_call(self, node: ast.Call, function: Function, arguments: Arguments) -> Value:
        found, uses = self._followed(function, _filled(function, arguments))
        if uses and not self.silence:
            line, use = min(uses)
            given = next(filter(None, map(first_promise, arguments.all())), None)
            if given is not None:
                self.misuse("DAG005", node, given, f"`{function.name}`, in line {line} ({use}),")
        self.escape(node)
        return made_at(node.lineno, found)

    def _followed(self, function: Function, parameters: dict[str, Value]) -> Followed:
        """Analyze a function with these parameters, to learn what a call returns and does with them."""
        if len(self.following) >= DEEPEST or function in self.following:
            return Followed(UNKNOWN, [])
        results = self.module.results if function.scope.lasts else None
        key = (function, len(self.following), tuple(parameters.items()))
        found = results.get(key) if results is not None else None
        if found is None:
            found = self._looked_into(function, parameters)
            if results is not None:
                results[key] = found
        return found

    def _looked_into(self, function: Function, parameters: dict[str, Value]) -> Followed:
        if self.module.budget <= 0:
            return Followed(UNKNOWN, [])
        uses: list[tuple[int, str]] = []

        def note(_: str, where: ast.expr | ast.stmt | ast.pattern, use: str) -> None:
            uses.append((where.lineno, use))

        frame = type(self)(self.module, Scope(function.scope, frozenset()), Body(function, False, False), note)
        frame.is_followed = True
        frame.following = (*self.following, function)
        return Followed(as_result(frame.result_of(function, parameters)), uses)

    def result_of(self, function: Function, parameters: dict[str, Value]) -> Value:
        """Analyze the body of a function; return what a call returns."""
        node = function.node
        self.scope.own = frozenset(parameters)
        for name, value in parameters.items():
            self.scope.bind(name, value)
        if isinstance(node, ast.Lambda):
            self.module.budget -= 1
            return self.value_of(node.body)
        return self._result_of_body(function, node)

    def _result_of_body(self, function: Function, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Value:
        self.module.budget -= 1 + len(node.body)
        self.scope.own |= self.module.names.bound_in(node, node.body)
        for name in self.module.names.declared_in(node):
            self.scope.bind(name, UNKNOWN)
        if self.run(node.body):
            self.returned.append(PLAIN)
        found = join_all(self.returned)
        if self.yielded:
            found = Items("iterator", join_all(self.yielded)) if not function.is_async else UNKNOWN
        return Awaitable(found) if function.is_async and not self.yielded else found


def is_async_node(function: Function) -> bool:
    """Return whether a call of a decorated function returns a coroutine."""
    kind = function.decorator.kind if function.decorator else ""
    return kind == "async" or (kind == "" and function.is_async)


def replace_first(arguments: Arguments, receiver: Value) -> Arguments:
    return replace(arguments, positional=(receiver, *arguments.positional))


def _is_only_star(node: ast.Call) -> bool:
    """Return whether the arguments are open because of `*`, and not of `**`, which may ask to run it here."""
    return all(keyword.arg is not None for keyword in node.keywords)


def _filled(function: Function, arguments: Arguments) -> dict[str, Value]:
    """Return the values of the parameters in a call."""
    given = function.node.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    found: dict[str, Value] = dict.fromkeys(parameters_of(function.node), UNKNOWN)
    for name, value in zip(names, arguments.positional, strict=False):
        found[name] = as_argument(value)
        if arguments.is_open and not isinstance(value, Instance):
            found[name] = UNKNOWN
    for name, value in arguments.keywords.items():
        if name in found:
            found[name] = as_argument(value)
    return found
