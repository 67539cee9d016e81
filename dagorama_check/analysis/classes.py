"""Classes of the checked files, their objects and methods: which attributes they have, and which are definitions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from dagorama_check.analysis.libraries import own_name
from dagorama_check.analysis.scopes import Scope
from dagorama_check.analysis.values import UNKNOWN, Decorator, Library, Value

#: Bases that add no attributes which matter here.
_HARMLESS = {"abc.ABC", "builtins.object", "typing.Generic", "typing.Protocol", "enum.Enum"}


class Class:
    """A class; its bases are known as far as they are in the checked files."""

    def __init__(self, node: ast.ClassDef, bases: list[Value], has_metaclass: bool) -> None:
        self.node = node
        self.name = node.name
        self.bases = bases
        self.namespace: dict[str, Value] = {}
        self.subclasses: list[Class] = []
        self.has_metaclass = has_metaclass
        self._hidden: frozenset[str] | None = None
        for base in bases:
            if isinstance(base, ClassRef):
                base.cls.subclasses.append(self)

    @property
    def is_definition(self) -> bool:
        """Return whether it certainly inherits from DAGDefinition."""
        return any(
            base.cls.is_definition if isinstance(base, ClassRef) else own_name(base) == "DAGDefinition"
            for base in self.bases
        )

    @property
    def is_known(self) -> bool:
        """Return whether all its bases are known."""
        return not self.has_metaclass and all(
            base.cls.is_known if isinstance(base, ClassRef) else _adds_nothing(base) for base in self.bases
        )

    def find(self, name: str, skip_own: bool = False) -> Value | None:
        """Return an attribute; UNKNOWN if a base that is not known may have it, None if there is none."""
        if name in self.namespace and not skip_own:
            return UNKNOWN if name in self.assigned_to_self else self.namespace[name]
        for base in self.bases:
            if isinstance(base, ClassRef):
                found = base.cls.find(name)
                if found is not None:
                    return UNKNOWN if name in self.assigned_to_self else found
            elif not _adds_nothing(base):
                return UNKNOWN
        return UNKNOWN if self.has_metaclass else None

    def is_overridden(self, name: str) -> bool:
        """Return whether a subclass has another attribute with this name."""
        return any(name in sub.namespace or sub.is_overridden(name) for sub in self.subclasses)

    @property
    def assigned_to_self(self) -> frozenset[str]:
        """The names that its methods assign to their first parameter: they hide methods."""
        if self._hidden is None:
            self._hidden = frozenset(
                target.attr for target in _attributes_in(self.node) if not isinstance(target.ctx, ast.Load)
            )
        return self._hidden

    def family(self) -> Iterator[Class]:
        """Yield the class, its bases and its subclasses."""
        yield from self._above()
        for sub in self.subclasses:
            yield from sub._below()

    def _above(self) -> Iterator[Class]:
        yield self
        for base in self.bases:
            if isinstance(base, ClassRef):
                yield from base.cls._above()

    def _below(self) -> Iterator[Class]:
        yield self
        for sub in self.subclasses:
            yield from sub._below()

    def methods(self) -> Iterator[Function]:
        return (value for value in self.namespace.values() if isinstance(value, Function))


@dataclass(frozen=True)
class Instance(Value):
    """An instance of a definition, as `self` is in its methods."""

    cls: Class


@dataclass(frozen=True)
class Definition(Value):
    """An object of a class, as a call of the class returns it."""

    cls: Class


@dataclass(frozen=True)
class ClassRef(Value):
    cls: Class


@dataclass(frozen=True)
class Super(Value):
    """`super()`."""

    cls: Class
    receiver: Value


@dataclass(frozen=True)
class Starter(Value):
    """The result of `start(...)`, or a class whose entry point is called by `attach`."""

    cls: Class
    is_attached: bool = False


@dataclass(frozen=True, eq=False)
class Function(Value):
    """A function or a lambda."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: Scope  #: in which it is defined
    owner: Class | None = None
    decorator: Decorator | None = None
    is_static: bool = False

    @property
    def name(self) -> str:
        own = "lambda" if isinstance(self.node, ast.Lambda) else self.node.name
        return f"{self.owner.name}.{own}" if self.owner else own

    @property
    def is_async(self) -> bool:
        return isinstance(self.node, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Bound(Value):
    """A method with its receiver."""

    function: Function
    receiver: Value


def _adds_nothing(base: Value) -> bool:
    return own_name(base) == "DAGDefinition" or (isinstance(base, Library) and base.name in _HARMLESS)


def _attributes_in(node: ast.ClassDef) -> Iterator[ast.Attribute]:
    """Yield the attributes of first parameters in the methods of a class."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and method.args.args:
            own = method.args.args[0].arg
            for part in ast.walk(method):
                if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == own:
                    yield part
