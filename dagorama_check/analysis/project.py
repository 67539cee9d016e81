"""The checked files as modules that import one another, and the order in which they are analyzed."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from dagorama_check.analysis.classes import Class, Definition, Function, Instance
from dagorama_check.analysis.frame import BUDGET, Body, Followed, Sink
from dagorama_check.analysis.libraries import MAKERS, THEIR_MODULES
from dagorama_check.analysis.scopes import Names, Scope, names_bound_in, parameters_of
from dagorama_check.analysis.state import Uses, lost_state
from dagorama_check.analysis.statements import Interpreter
from dagorama_check.analysis.values import PLAIN, UNKNOWN, Value

#: Methods that run before the object is called, so that there is no instance yet.
_CONSTRUCTORS = {"__init__", "__new__", "__post_init__"}


class Source(NamedTuple):
    """A parsed file."""

    module: str  #: its full name
    is_package: bool
    tree: ast.Module
    sink: Sink


class Project:
    """All modules of a run."""

    def __init__(self, sources: list[Source]) -> None:
        self.modules: dict[str, ModuleAnalysis] = {}
        self.all: list[ModuleAnalysis] = []
        for source in sources:
            module = ModuleAnalysis(self, source)
            self.all.append(module)
            self.modules.setdefault(source.module, module)

    def concerned(self) -> list[ModuleAnalysis]:
        """Return the modules in which a promise may appear: they import what makes them, or one of these modules."""
        found = {module.name: module for module in self.all if module.makes_promises}
        left = [module for module in self.all if module.name not in found]
        while new := [module for module in left if not module.imported.isdisjoint(found)]:
            found |= {module.name: module for module in new}
            left = [module for module in left if module.name not in found]
        return [module for module in self.all if module.name in found]

    def find(self, name: str) -> ModuleAnalysis | None:
        """Return the module with this name, after its statements have been analyzed."""
        module = self.modules.get(name)
        if module is not None:
            module.look()
        return module


class ModuleAnalysis:
    """One module."""

    def __init__(self, project: Project, source: Source) -> None:
        self.name = source.module
        self.sink = source.sink
        self.bodies: list[Body] = []
        self.classes: list[Class] = []
        self.budget = BUDGET
        self.nesting = 0
        self.names = Names(source.tree)
        self.results: dict[object, Followed] | None = None
        self._project = project
        self._is_package = source.is_package
        self._tree = source.tree
        self._scope = Scope(None, names_bound_in(source.tree.body))
        self._has_begun = False

    # --- imports

    @cached_property
    def imported(self) -> frozenset[str]:
        """The full names of the modules that are imported, and of what is imported from them."""
        found: set[str] = set()
        for node in self.names.imports:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            else:
                module = self.absolute(node.module, node.level)
                found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        return frozenset(found)

    @property
    def makes_promises(self) -> bool:
        """Return whether it imports something by which it may make promises itself."""
        return any(map(self._gives_promises, self.names.imports))

    def _gives_promises(self, node: ast.Import | ast.ImportFrom) -> bool:
        if isinstance(node, ast.Import):
            return any(alias.name.partition(".")[0] == "dagorama" for alias in node.names)
        module = self.absolute(node.module, node.level)
        names = {alias.name for alias in node.names}
        if module.partition(".")[0] != "dagorama":
            return False
        return not names.isdisjoint(MAKERS) or any(f"{module}.{name}" in THEIR_MODULES for name in names)

    def export_of(self, module: str, name: str) -> Value | None:
        found = self._project.find(module)
        if found is None or found is self:
            return None
        return found._scope.ever.get(name)

    def names_of(self, module: str) -> Mapping[str, Value] | None:
        found = self._project.find(module)
        return None if found is None else found._scope.ever

    def absolute(self, module: str | None, level: int) -> str:
        if not level:
            return module or ""
        parts = self.name.split(".")
        package = parts if self._is_package else parts[:-1]
        return ".".join([*package[: len(package) - level + 1], *([module] if module else [])])

    # --- looking

    def look(self) -> None:
        """Analyze the statements of the module, once; a module that imports it meanwhile sees what is known by then."""
        if self._has_begun:
            return
        self._has_begun = True
        for name in self.names.declared:
            self._scope.bind(name, UNKNOWN)
        Interpreter(self, self._scope).run(self._tree.body)

    def look_at_functions(self) -> None:
        self.results = {}
        while self.bodies:
            self._look_at(self.bodies.pop(0))

    def _look_at(self, body: Body) -> None:
        function = body.function
        scope = Scope(function.scope, frozenset())
        Interpreter(self, scope, body).result_of(function, _parameters(function))

    def look_at_state(self, known: dict[ast.AST, Uses]) -> None:
        for cls in self.classes:
            for node, message in lost_state(cls, known):
                self.sink("DAG008", node, message)


def _parameters(function: Function) -> dict[str, Value]:
    """Return what is known of parameters of which no call is analyzed: nodes get values."""
    names = parameters_of(function.node)
    found: dict[str, Value] = dict.fromkeys(names, PLAIN if function.decorator else UNKNOWN)
    cls = function.owner
    decorators = [] if isinstance(function.node, ast.Lambda) else function.node.decorator_list
    if cls is None or function.is_static or not names:
        return found
    is_constructor = not isinstance(function.node, ast.Lambda) and function.node.name in _CONSTRUCTORS
    is_for_class = any(isinstance(part, ast.Name) and part.id == "classmethod" for part in decorators)
    is_for_class |= not isinstance(function.node, ast.Lambda) and function.node.name in ("__new__", "__init_subclass__")
    found[names[0]] = UNKNOWN if is_for_class else Definition(cls) if is_constructor else Instance(cls)
    return found


def look_at(sources: list[Source]) -> None:
    """Analyze all files; their sinks get the findings."""
    project = Project(sources)
    modules = project.concerned()
    for module in modules:
        module.look()
    for module in modules:
        module.look_at_functions()
    known: dict[ast.AST, Uses] = {}
    for module in modules:
        module.look_at_state(known)
