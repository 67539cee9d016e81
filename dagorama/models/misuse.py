"""Uses that need a value, such as operators, text and iteration: promises and references refuse them all."""

from collections.abc import Callable, Collection
from typing import Any, NoReturn

from dagorama.errors import PromiseAttribute, PromiseMisuse

_BINARY = {
    "add": "+", "sub": "-", "mul": "*", "matmul": "@", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**",
    "lshift": "<<", "rshift": ">>", "and": "&", "xor": "^", "or": "|",
}  # fmt: skip
_USES = {
    "__bool__": "its truth (if, while, and, or, not)",
    "__str__": "its text",
    "__format__": "its text in an f-string",
    "__bytes__": "bytes(...)",
    "__fspath__": "its use as a path",
    "__int__": "int(...)",
    "__float__": "float(...)",
    "__complex__": "complex(...)",
    "__index__": "its use as an index",
    "__round__": "round(...)",
    "__trunc__": "trunc(...)",
    "__floor__": "floor(...)",
    "__ceil__": "ceil(...)",
    "__neg__": "-{name}",
    "__pos__": "+{name}",
    "__abs__": "abs(...)",
    "__invert__": "~{name}",
    "__divmod__": "divmod(...)",
    "__rdivmod__": "divmod(...)",
    "__lt__": "the comparison <",
    "__le__": "the comparison <=",
    "__gt__": "the comparison >",
    "__ge__": "the comparison >=",
    "__len__": "len(...)",
    "__iter__": "iteration",
    "__next__": "next(...)",
    "__reversed__": "reversed(...)",
    "__contains__": "the test `in`",
    "__getitem__": "{name}[...]",
    "__setitem__": "{name}[...] = ...",
    "__delitem__": "del {name}[...]",
    "__call__": "calling it",
    "__await__": "awaiting it (a call of an async method is awaited once, a call of a sync method never)",
    "__aiter__": "async iteration",
    "__anext__": "anext(...)",
    "__enter__": "`with`",
    "__exit__": "`with`",
    "__aenter__": "`async with`",
    "__aexit__": "`async with`",
}


def refuse_value_uses(kind: type, explain: Callable[[Any, str], str], name: str, allowed: Collection[str] = ()) -> None:
    """Let every such use of a `kind` raise PromiseMisuse with the text of `explain`.

    The methods are set from tables and not written in the class, so that type checkers still report `promise + 1`.
    """
    for method in _USES.keys() - set(allowed):
        use = _USES[method]
        setattr(kind, method, _refusal(explain, use.format(name=name)))
    for operator, sign in _BINARY.items():
        setattr(kind, f"__{operator}__", _refusal(explain, f"{name} {sign} ..."))
        setattr(kind, f"__r{operator}__", _refusal(explain, f"... {sign} {name}"))
        setattr(kind, f"__i{operator}__", _refusal(explain, f"{name} {sign}= ..."))


def refuse_attributes(kind: type, explain: Callable[[Any, str], str], noun: str) -> None:
    """Let reads of missing attributes of a `kind`, and all assignments, raise PromiseAttribute with that text."""

    def read(self: Any, name: str) -> NoReturn:
        # copy, pickle and hasattr read such names and need a plain AttributeError.
        if name.startswith("_"):
            raise AttributeError(f"a {noun} has no attribute {name!r}", name=name, obj=self)
        raise PromiseAttribute(explain(self, f"its attribute {name!r}"))

    def write(self: Any, name: str, value: object) -> NoReturn:
        raise PromiseAttribute(explain(self, f"setting its attribute {name!r}"))

    def delete(self: Any, name: str) -> NoReturn:
        raise PromiseAttribute(explain(self, f"deleting its attribute {name!r}"))

    for method, refuse in (("__getattr__", read), ("__setattr__", write), ("__delattr__", delete)):
        setattr(kind, method, refuse)


def comparison(other: object) -> str:
    """Return the name of the use `== other`, for `explain`."""
    return "comparing with None" if other is None else f"comparing with a value of type {type(other).__qualname__}"


def _refusal(explain: Callable[[Any, str], str], use: str) -> Callable[..., NoReturn]:
    def refuse(self: Any, *_: object, **__: object) -> NoReturn:
        raise PromiseMisuse(explain(self, use))

    return refuse
