"""The source of modules, and the texts of the assignments in them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache

from dagorama.code_signature import canonical, source_lines


def source_of(module: object) -> str:
    """Return the source of a module that was loaded from a file; an empty text for any other module."""
    loaded = sys.modules.get(module) if isinstance(module, str) else None
    filename = getattr(loaded, "__file__", None)
    if not filename or not filename.endswith((".py", ".pyw")):
        return ""
    return "".join(source_lines(filename, vars(loaded)))


def assignments(module: object, path: str) -> Mapping[str, str]:
    """Return the canonical texts of the values assigned to each name, in a module or in the body of one of its classes.

    `path` is the qualified name of the class; empty for the module itself.
    """
    source = source_of(module)
    return _scopes(source).get(path, {}) if source else {}


@lru_cache(maxsize=64)
def _scopes(source: str) -> Mapping[str, Mapping[str, str]]:
    scopes: dict[str, dict[str, str]] = {}
    try:
        stack: list[tuple[str, list[ast.stmt]]] = [("", ast.parse(source).body)]
    except (SyntaxError, ValueError):
        return scopes  # the file has changed since it was loaded
    while stack:
        path, statements = stack.pop()
        scope = scopes.setdefault(path, {})
        for statement in statements:
            if isinstance(statement, ast.ClassDef):
                stack.append((f"{path}.{statement.name}" if path else statement.name, statement.body))
            for name, text in _bound_by(statement):
                scope[name] = scope.get(name, "") + text
            stack += [(path, block) for block in _blocks(statement)]
    return scopes


def _bound_by(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and statement.decorator_list:
        yield statement.name, "".join(canonical(statement))  # a decorator may return an object that is no function
    for targets, value in (*_bindings(statement), *_walruses(statement)):
        text = "".join(canonical(value))
        for target in targets:
            for node in ast.walk(target):
                if isinstance(node, ast.Name):
                    yield node.id, text


def _bindings(statement: ast.stmt) -> Iterator[tuple[list[ast.expr], ast.expr]]:
    """Yield the targets of a statement with the expressions that give their values."""
    if isinstance(statement, ast.Assign):
        yield statement.targets, statement.value
    elif isinstance(statement, (ast.AnnAssign, ast.AugAssign)) and statement.value is not None:
        yield [statement.target], statement.value
    elif isinstance(statement, (ast.For, ast.AsyncFor)):
        yield [statement.target], statement.iter
    elif isinstance(statement, (ast.With, ast.AsyncWith)):
        yield from (([item.optional_vars], item.context_expr) for item in statement.items if item.optional_vars)


def _walruses(statement: ast.stmt) -> Iterator[tuple[list[ast.expr], ast.expr]]:
    """Yield what `:=` binds in the expressions of a statement, but not in its blocks."""
    for part in ast.iter_child_nodes(statement):
        if isinstance(part, ast.expr):
            for node in ast.walk(part):
                if isinstance(node, ast.NamedExpr):
                    yield [node.target], node.value


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Yield the blocks of an `if`, a `try`, a `with` or a loop, which belong to the surrounding scope."""
    if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    for part in ("body", "orelse", "finalbody"):
        yield getattr(statement, part, [])
    for handler in getattr(statement, "handlers", []):
        yield handler.body
