"""Texts that identify values in every process: the contents of plain values, and digests of pickles of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from io import BytesIO
from types import ModuleType
from typing import Any, cast

from dagorama.code_signature import DIGITS, scalar

#: The most items of a plain value: it is compared by its text at each call. A larger value is compared by identity, or
#: hashed as a pickle.
MAX_PLAIN_ITEMS = 10_000

_SCALARS = (type(None), type(...), bool, int, float, complex, str, bytes)
_CONTAINERS = (tuple, list, set, frozenset)


def plain_text(value: object) -> str:
    """Return a text for a plain value that is the same in every process; an empty one for any other value."""
    return "".join(_plain_parts(value)) if _is_plain(value) else ""


def value_text(value: object, found: Callable[[type], None] | None = None) -> str:
    """Return a text for a value that is sent with the code: its contents if it is plain, else a digest of its pickle.

    The pickle names classes, even classes that are sent by value, whose pickles differ from process to process;
    `found` is called with each. Return an empty text for modules, and for values that cannot be pickled.
    """
    if isinstance(value, ModuleType):
        return ""
    plain = plain_text(value)
    if plain:
        return plain
    import cloudpickle  # type: ignore[import-untyped]  # it ships no types

    class Namer(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle ships no types
        def persistent_id(self, part: object) -> str | None:
            if not isinstance(part, type):
                return None
            if found is not None:
                found(part)
            return f"{part.__module__}:{part.__qualname__}"

    file = BytesIO()
    try:
        Namer(file).dump(value)
    except Exception:  # it cannot be pickled, which is an error only if it must be sent
        return ""
    return "pickle:" + sha256(file.getvalue()).hexdigest()[:DIGITS]


def _is_plain(value: object) -> bool:
    """Return whether a value consists of scalars in standard containers, and has at most MAX_PLAIN_ITEMS items."""
    stack, left = [value], MAX_PLAIN_ITEMS
    while stack:
        item = stack.pop()
        left -= 1
        if type(item) in _CONTAINERS:
            stack.extend(cast("Iterable[object]", item))
        elif type(item) is dict:
            stack += [part for pair in item.items() for part in pair]
        elif type(item) not in _SCALARS:
            return False
        if left < len(stack):
            return False
    return True


def _plain_parts(value: Any) -> Iterator[str]:
    if type(value) in (set, frozenset):
        yield f"{type(value).__name__}{{{','.join(sorted(map(plain_text, value)))}}}"
    elif type(value) in (tuple, list):
        yield f"{type(value).__name__}({','.join(map(plain_text, value))})"
    elif type(value) is dict:
        yield f"dict({','.join(f'{plain_text(key)}:{plain_text(part)}' for key, part in value.items())})"
    else:
        yield scalar(value)
