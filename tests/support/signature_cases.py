"""Functions of every shape of syntax that the oldest supported Python knows; their hashes are compared, never run."""

# ruff: noqa
# fmt: off
# mypy: ignore-errors
# pyright: basic, reportUndefinedVariable=false, reportAttributeAccessIssue=false

import asyncio
import functools
from dataclasses import dataclass, field

LIMIT = 3
NAMES = ("a", "ü", "\N{PILE OF POO}", "🫨")


def texts(self, name, width=10, /, *rest, precision: int = LIMIT, names=NAMES, **options):
    """A docstring."""
    plain = 'single' "double" '''triple
  with lines''' r"raw\n" + b"bytes\x00".decode()
    value = f"{name!r:>{width}.{precision}} {{braces}} {name=} {name = !s}" f" and {rest[0][0]}" "tail" f""
    spec = f"{width:}{width:05d}{{}}{width:{'x'}^{width}}" + f'''{
        name
    }'''
    return plain, value, spec, u"unicode", 1_000_000, 0xFF, 10**30, 1e300, 1e999, 2j, -1, ..., None, True, "\ud800"


async def awaits(self, source, *, limit: "int | None" = None) -> list[int]:
    async with asyncio.timeout(limit) as deadline, source:
        found = [item async for item in source if item]
    async for item in source:
        await item
        yield item


def matches(command, *, default=(LIMIT, -1, None)):
    match command:
        case {"kind": "move", "to": [x, y, *rest], **others} if x > y:
            return x, y, rest, others
        case Point(x=0, y=value) | Point(0, value):
            return value
        case -1 | 2.5 | None | True | "text":
            return default
        case [] | [_] | (1, 2):
            pass
        case str() as text:
            return text
        case _:
            raise ValueError from None


def blocks(items, total=0):
    global LIMIT
    for index, (first, *others) in enumerate(items):
        while (total := total + index) < 10:
            total += 1
            if not total % 3:
                continue
            elif total > 8 or first in others and first is not None:
                break
        else:
            total //= 2
    try:
        assert items, "none"
        del items[0], items[1:2, ::3]
    except (ValueError, TypeError) as error:
        raise RuntimeError(str(error)) from error
    else:
        with open("x") as a, open("y"):
            pass
    finally:
        LIMIT = total
    return {**dict(a=1), "b": 2}, {*items}, [*items], {k: v for k, v in items}, (yield), (yield from items)


def groups():
    try:
        pass
    except* (OSError, ValueError) as group:
        raise


def nests(self, x: int):
    y: list[int] = []
    z: int

    @functools.lru_cache(maxsize=None)
    def inner(a, b=x, *, c: int = 4) -> int:
        """Inner docstring."""
        nonlocal y
        y = a @ b ** c | ~a ^ b & c << 1 >> 2
        return lambda q, *w, k=1, **r: (q, w, k, r) if q else not w

    @dataclass(frozen=True, slots=True)
    class Local(dict, metaclass=type):
        """Docstring of a class."""

        count: int = 0
        names: list[str] = field(default_factory=list)

        def method(self):
            v: int = self.count
            return super().method() and self.__private

    return inner(*[x], **{"b": 1}), Local, y


def deep(x):
    return x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x


async_lambda = lambda x, y=LIMIT: (lambda: x) if y else [i for i in y for j in i if j]
first, second = (lambda a: a + 1), (lambda a: a + 2)
