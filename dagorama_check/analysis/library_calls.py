"""Calls of Python's own functions, of libraries, and of what dagorama offers."""

from __future__ import annotations

import ast
from abc import abstractmethod

from dagorama_check.analysis.classes import Definition, Starter
from dagorama_check.analysis.data_methods import DataMethods
from dagorama_check.analysis.libraries import (
    ASKS_TYPE,
    MAPPING,
    NEED_ALL_VALUES,
    NEED_ITEMS,
    NEED_VALUES,
    PLAIN_RESULTS,
    STUCK,
    own_name,
    shown_name,
)
from dagorama_check.analysis.values import (
    NOTHING,
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
    first_promise,
    item_of,
    join,
    join_all,
)

#: Functions that take an iterable, and the kind of what they return.
_KINDS = {
    "frozenset": "set", "iter": "iterator", "list": "list", "reversed": "iterator", "set": "set", "sorted": "list",
    "tuple": "tuple",
}  # fmt: skip
#: Functions that compare items, which needs two of them, or call a function for each if they get `key`.
_COMPARE = {"builtins.max", "builtins.min", "builtins.sorted"}
#: Functions that do what a statement or an operator does, under the same code.
_CODES = {
    "builtins.bool": "DAG001",
    "builtins.str": "DAG002",
    "builtins.len": "DAG002",
    "builtins.format": "DAG002",
}
_WAITING = {"resolve": 1, "aresolve": 1, "as_completed": 1, "resolve_all": 0}
_AWAITED = {"create_task", "ensure_future", "shield", "wait_for"}
_READS_TEXT = {"", "r", "rt", "tr"}


class LibraryCalls(DataMethods):
    """Analyzes calls of functions whose code is not checked."""

    @abstractmethod
    def called(self, node: ast.Call, callee: Value, arguments: Arguments) -> Value: ...
    @abstractmethod
    def escape(self, node: ast.Call) -> None: ...

    def library_call(self, node: ast.Call, callee: Library, arguments: Arguments) -> Value:
        """Return the result of a function that is not in the checked files."""
        if own := own_name(callee):
            return self._own_call(node, own, arguments)
        name = callee.name
        if name in ASKS_TYPE:
            self._forget_asked(node)
            return PLAIN
        if self._is_misused(node, name, arguments):
            return UNKNOWN
        if name.startswith("asyncio."):
            return self._of_asyncio(node, name, arguments)
        return self._result(node, name, arguments)

    def _forget_asked(self, node: ast.Call) -> None:
        for argument in node.args:
            if isinstance(argument, ast.Name):
                self.scope.bind(argument.id, UNKNOWN)

    # --- misuse

    def _is_misused(self, node: ast.Call, name: str, arguments: Arguments) -> bool:
        use = f"`{shown_name(name)}()`"
        code = _CODES.get(name, "DAG005")
        if any(self.misuse(code, node, value, use) for value in _needed(name, arguments)):
            return True
        if name in MAPPING and self.misuse("DAG005", node, arguments.at(1), use):
            return True
        return name in NEED_ITEMS and self._items_are_misused(node, name, arguments, use)

    def _items_are_misused(self, node: ast.Call, name: str, arguments: Arguments, use: str) -> bool:
        first = arguments.at(0)
        if "key" in arguments.keywords or (name == "builtins.sum" and len(arguments.positional) > 1):
            return False
        if name == "json.dumps":
            promise = None if "default" in arguments.keywords or arguments.is_open else first_promise(first)
            return promise is not None and self.misuse("DAG005", node, promise, use)
        if not isinstance(first, Fixed | Items) or (len(arguments.positional) > 1 and name in _COMPARE):
            return False
        if isinstance(first, Fixed):
            return self._fixed_are_misused(node, name, first, use)
        return self.misuse_of_items("DAG005", node, first, use)

    def _fixed_are_misused(self, node: ast.Call, name: str, given: Fixed, use: str) -> bool:
        if name in _COMPARE and len(given.items) < 2:
            return False
        items = given.items[:1] if name in ("builtins.all", "builtins.any") else given.items
        return any(self.misuse("DAG005", node, item, use) for item in items)

    # --- results

    def _result(self, node: ast.Call, name: str, arguments: Arguments) -> Value:
        short = name.removeprefix("builtins.")
        first = arguments.at(0)
        if name in PLAIN_RESULTS:
            return self._plain_result(name, arguments)
        if name in STUCK:
            return Stuck(STUCK[name])
        if name.startswith("builtins.") and short in _KINDS and not arguments.is_open:
            return Items(_KINDS[short], item_of(first) if arguments.positional else NOTHING)
        look = getattr(self, f"_of_{short}", None) if name.startswith("builtins.") else None
        if look is not None:
            found: Value = look(node, arguments)
            return found
        if name in ("copy.copy", "copy.deepcopy"):
            return first
        self.escape(node)
        return UNKNOWN

    def _plain_result(self, name: str, arguments: Arguments) -> Value:
        """Return PLAIN, unless the result may be one of the arguments."""
        may_return_argument = name in ("builtins.max", "builtins.min", "builtins.sum", "builtins.type")
        return UNKNOWN if may_return_argument and any(value != PLAIN for value in arguments.all()) else PLAIN

    def _of_enumerate(self, node: ast.Call, arguments: Arguments) -> Value:
        return Items("iterator", Fixed("tuple", (PLAIN, item_of(arguments.at(0)))))

    def _of_zip(self, node: ast.Call, arguments: Arguments) -> Value:
        if arguments.is_open:
            return UNKNOWN
        return Items("iterator", Fixed("tuple", tuple(map(item_of, arguments.positional))))

    def _of_map(self, node: ast.Call, arguments: Arguments) -> Value:
        items = tuple(map(item_of, arguments.positional[1:]))
        return Items("iterator", self.called(node, arguments.at(0), Arguments(items, is_open=arguments.is_open)))

    def _of_range(self, node: ast.Call, arguments: Arguments) -> Value:
        return Items("range", PLAIN)

    def _of_next(self, node: ast.Call, arguments: Arguments) -> Value:
        found = item_of(arguments.at(0))
        return join(found, arguments.at(1)) if len(arguments.positional) > 1 else found

    def _of_dict(self, node: ast.Call, arguments: Arguments) -> Value:
        first = arguments.at(0)
        if arguments.is_open or (not isinstance(first, Table | Items) and first != NOTHING):
            return UNKNOWN
        pair = first.item if isinstance(first, Items) else None
        values = [pair.items[1] if isinstance(pair, Fixed) and len(pair.items) == 2 else UNKNOWN] if pair else []
        values += [first.item] if isinstance(first, Table) else []
        return Table(join_all([*values, *arguments.keywords.values()]))

    def _of_getattr(self, node: ast.Call, arguments: Arguments) -> Value:
        name = node.args[1] if len(node.args) == 2 else None
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            return self.attribute(node, arguments.at(0), name.value)
        return UNKNOWN

    def _of_open(self, node: ast.Call, arguments: Arguments) -> Value:
        modes = [*node.args[1:2], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        mode = modes[0].value if modes and isinstance(modes[0], ast.Constant) else ""
        return UNKNOWN if mode in _READS_TEXT else Stuck("an open file")

    # --- asyncio

    def _of_asyncio(self, node: ast.Call, name: str, arguments: Arguments) -> Value:
        short = name.partition(".")[2]
        use = f"`{short}()`"
        if short == "gather":
            return self._gathered(node, arguments, use)
        if short in ("run", *_AWAITED):
            first = arguments.at(0)
            if isinstance(first, Promise):
                self.misuse("DAG006", node, first, use)
            elif isinstance(first, Awaitable):
                return first.of if short == "run" else Awaitable(first.of)
        return UNKNOWN

    def _gathered(self, node: ast.Call, arguments: Arguments, use: str) -> Value:
        if any(
            isinstance(value, Promise) and self.misuse("DAG006", node, value, use) for value in arguments.positional
        ):
            return UNKNOWN
        if "return_exceptions" in arguments.keywords:
            return UNKNOWN
        values = [value.of if isinstance(value, Awaitable) else UNKNOWN for value in arguments.positional]
        found = Items("list", join_all(values)) if arguments.is_open else Fixed("list", tuple(values))
        return Awaitable(found)

    # --- dagorama

    def _own_call(self, node: ast.Call, own: str, arguments: Arguments) -> Value:
        first = arguments.at(0)
        if own == "dagorama":
            streaming = [keyword.value for keyword in node.keywords if keyword.arg in ("stream_children", None)]
            is_streaming = bool(streaming) and not (isinstance(streaming[0], ast.Constant) and not streaming[0].value)
            return Decorator("", is_streaming)
        if own == "outcome":
            return first if isinstance(first, Promise) else UNKNOWN
        if own == "start":
            return Starter(first.cls) if isinstance(first, Definition) else UNKNOWN
        if own in _WAITING:
            self._wait(node, own, arguments)
        return UNKNOWN

    def _wait(self, node: ast.Call, own: str, arguments: Arguments) -> None:
        """Report a node that waits for what it creates: that is not submitted before the node has ended."""
        body = self.body
        promise = first_promise(arguments.at(_WAITING[own], "promise"))
        if body is None or not body.is_node or body.is_streaming or promise is None or promise.is_attached:
            return
        made = f"a promise of `{promise.maker}`, which starts only when this node has ended"
        self.report("DAG007", node, f"`{own}()` asks for the value of {made}")


def _needed(name: str, arguments: Arguments) -> tuple[Value, ...]:
    """Return the arguments of which a function needs the values."""
    if name in NEED_ALL_VALUES:
        # A function of the caller may take something else out of a promise.
        has_key = "key" in arguments.keywords and len(arguments.positional) > 1
        return () if has_key else arguments.positional
    return arguments.positional[:1] if name in NEED_VALUES or name in _CODES else ()
