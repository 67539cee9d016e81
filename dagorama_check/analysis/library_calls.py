"""Calls of Python's own functions, of libraries, and of what dagorama offers."""

from __future__ import annotations

import ast
from abc import abstractmethod
from string import Formatter

from dagorama_check.analysis.bindings import Bindings
from dagorama_check.analysis.classes import Definition, Starter
from dagorama_check.analysis.libraries import (
    ASKS_TYPE,
    MAPPING,
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
#: Methods of lists that return nothing.
_CHANGES = {"append", "extend", "insert", "remove", "clear", "reverse", "sort", "add", "discard", "update"}
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


class LibraryCalls(Bindings):
    """Looks at calls of functions whose code is not checked."""

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
        needs = name in NEED_VALUES or name in _CODES
        if needs and any(self.misuse(code, node, value, use) for value in arguments.positional):
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

    # --- methods of lists, dicts and texts

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
        """Look at `text.format(...)`: the fields that show the text of a promise."""
        try:
            fields = [(name, conversion) for _, name, _, conversion in Formatter().parse(text) if name is not None]
        except ValueError:  # it raises when it runs, with or without promises
            return
        for index, (name, conversion) in enumerate(fields):
            key = name or f"{index}"
            value = arguments.at(int(key)) if key.isdecimal() else arguments.keywords.get(key, UNKNOWN)
            if conversion in (None, "s") and self.misuse("DAG002", node, value, "the text in `format()`"):
                return
