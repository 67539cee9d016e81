"""`match` statements: whether one of their patterns compares with a promise."""

from __future__ import annotations

import ast

from dagorama_check.analysis.values import Awaitable, Fixed, Promise, Value

#: Classes that a promise is certainly no instance of.
_PLAIN_CLASSES = {"bool", "bytes", "dict", "float", "int", "list", "set", "str", "tuple"}


def compared(patterns: list[ast.pattern], subject: Value) -> Value | None:
    """Return the promise, or the coroutine, that patterns look into; None if they certainly look into none.

    A pattern of a class that may be DAGPromise is legitimate: then nothing is returned.
    """
    flat = [part for pattern in patterns for part in _alternatives(pattern)]
    if isinstance(subject, Promise | Awaitable):
        return subject if _all_are_plain(flat) else None
    if isinstance(subject, Fixed):
        return _compared_item(flat, subject)
    return None


def _compared_item(patterns: list[ast.pattern], subject: Fixed) -> Value | None:
    rows = [
        pattern.patterns
        for pattern in patterns
        if isinstance(pattern, ast.MatchSequence)
        and len(pattern.patterns) == len(subject.items)
        and not any(isinstance(part, ast.MatchStar) for part in pattern.patterns)
    ]
    for index, item in enumerate(subject.items):
        column = [row[index] for row in rows[:1] if not index or _matches_anything(row[:index])]
        found = compared(column, item) if column else None
        if found is not None:
            return found
    return None


def _matches_anything(patterns: list[ast.pattern]) -> bool:
    return all(isinstance(pattern, ast.MatchAs) and pattern.pattern is None for pattern in patterns)


def _alternatives(pattern: ast.pattern) -> list[ast.pattern]:
    if isinstance(pattern, ast.MatchOr):
        return [part for each in pattern.patterns for part in _alternatives(each)]
    if isinstance(pattern, ast.MatchAs) and pattern.pattern is not None:
        return _alternatives(pattern.pattern)
    return [pattern]


def _all_are_plain(patterns: list[ast.pattern]) -> bool:
    """Return whether all patterns but the ones that match anything describe values, of which there is one."""
    describing = [pattern for pattern in patterns if not isinstance(pattern, ast.MatchAs)]
    return bool(describing) and all(map(_is_plain, describing))


def _is_plain(pattern: ast.pattern) -> bool:
    if isinstance(pattern, ast.MatchClass):
        return isinstance(pattern.cls, ast.Name) and pattern.cls.id in _PLAIN_CLASSES
    if isinstance(pattern, ast.MatchValue):
        return isinstance(pattern.value, ast.Constant | ast.UnaryOp | ast.BinOp)
    return isinstance(pattern, ast.MatchSequence | ast.MatchMapping)
