"""Imports, and definitions of functions and classes."""

from __future__ import annotations

import ast

from dagorama_check.analysis.classes import Class, ClassRef, Function
from dagorama_check.analysis.expressions import Expressions
from dagorama_check.analysis.libraries import own_name
from dagorama_check.analysis.scopes import Scope, names_bound_in
from dagorama_check.analysis.values import UNKNOWN, Decorator, Library, Value

_DECORATORS_WITHOUT_EFFECT = {"abstractmethod", "final", "override"}
_CLASS_DECORATORS_WITHOUT_EFFECT = {"dataclass", "final"}


class Definitions(Expressions):
    """Analyzes statements that define something or import it."""

    # --- imports

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.partition(".")[0]
            self.scope.bind(alias.asname or name, Library(name))

    def _importfrom(self, node: ast.ImportFrom) -> None:
        module = self.module.absolute(node.module, node.level)
        for alias in node.names:
            if alias.name == "*":
                self._import_all(module)
            else:
                found = self.module.export_of(module, alias.name)
                self.scope.bind(alias.asname or alias.name, found or Library(f"{module}.{alias.name}"))

    def _import_all(self, module: str) -> None:
        exported = self.module.names_of(module)
        if exported is None:
            self.scope.is_open = True
        for name, value in (exported or {}).items():
            if not name.startswith("_"):
                self.scope.bind(name, value)

    # --- functions and classes

    def _functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.value_of(default)
        function = Function(node, self.scope, self.owner)
        value: Value = function
        for part in reversed(node.decorator_list):
            value = self._apply(self.value_of(part), value, function, part)
        self.scope.bind(node.name, value)
        self.add_body(value if isinstance(value, Function) else function)

    _asyncfunctiondef = _functiondef

    @property
    def owner(self) -> Class | None:
        """The class whose body this is."""
        return getattr(self.scope, "cls", None)

    def _apply(self, decorator: Value, value: Value, function: Function, part: ast.expr) -> Value:
        if own_name(decorator) == "dagorama":
            decorator = Decorator()
        if isinstance(decorator, Decorator):
            if isinstance(value, Function):
                return Function(function.node, function.scope, function.owner, decorator)
            known = decorator.kind != ""
            return Function(function.node, function.scope, function.owner, decorator) if known else UNKNOWN
        name = decorator.name.rpartition(".")[2] if isinstance(decorator, Library) else ""
        if name == "staticmethod" and isinstance(value, Function):
            return Function(function.node, function.scope, function.owner, value.decorator, is_static=True)
        return value if name in _DECORATORS_WITHOUT_EFFECT else UNKNOWN

    def _classdef(self, node: ast.ClassDef) -> None:
        bases = [self.value_of(base) for base in node.bases]
        metaclasses = [self.value_of(keyword.value) for keyword in node.keywords if keyword.arg in ("metaclass", None)]
        harmless = all(isinstance(value, Library) and value.name == "abc.ABCMeta" for value in metaclasses)
        cls = Class(node, bases, not harmless)
        self.module.classes.append(cls)
        scope = ClassScope(self.scope, names_bound_in(node.body), cls)
        frame = type(self)(self.module, scope, self.body, self.sink)
        frame.is_followed = self.is_followed
        frame.silence = self.silence
        frame.run(node.body)
        cls.namespace.update(scope.names)
        decorators = [self.value_of(part) for part in node.decorator_list]
        names = [value.name.rpartition(".")[2] if isinstance(value, Library) else "" for value in decorators]
        names = [
            "dataclass" if _is_dataclass(part) else name for part, name in zip(node.decorator_list, names, strict=True)
        ]
        is_itself = set(names) <= _CLASS_DECORATORS_WITHOUT_EFFECT
        self.scope.bind(node.name, ClassRef(cls) if is_itself else UNKNOWN)


class ClassScope(Scope):
    """The body of a class."""

    def __init__(self, parent: Scope, own: frozenset[str], cls: Class) -> None:
        super().__init__(parent, own, is_class=True)
        self.cls = cls


def _is_dataclass(part: ast.expr) -> bool:
    called = part.func if isinstance(part, ast.Call) else part
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return name == "dataclass"
