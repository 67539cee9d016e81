"""Promises: what may be done with one, and what explains itself instead."""

import asyncio
import copy
import dataclasses
import functools
import math
import operator
import os
import pickle
import pprint
import re
from collections import deque
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from uuid import UUID, uuid4

import numpy as np
import pandas as pd
import pytest

from dagorama.errors import PromiseAttribute, PromiseMisuse
from dagorama.models.arguments import DAGArguments
from dagorama.models.promise import DAGPromise

ORIGIN, INSTANCE = bytes(range(12)), bytes(range(16))


def made(counter: int = 7, *args: object, **kwargs: object) -> Any:
    """A promise as a call makes it; typed as what it stands for, which is how it comes to be misused."""
    return DAGPromise._made(ORIGIN, counter, INSTANCE, "shop.dags:MyTask.perform_work", args, kwargs, ("app.py", 12))


def in_context(promise: Any) -> None:
    with promise:
        pass


def unpack(promise: Any) -> None:
    _, _ = promise


def change_item(promise: Any) -> None:
    promise["key"] = 1


def drop_item(promise: Any) -> None:
    del promise["key"]


def add_in_place(promise: Any) -> None:
    promise += 1


async def wait_for(promise: Any) -> None:
    await promise


async def go_through(promise: Any) -> None:
    async for _ in promise:
        pass


async def enter_async(promise: Any) -> None:
    async with promise:
        pass


USES: dict[str, Callable[[Any], object]] = {
    "if": lambda promise: 1 if promise else 2,
    "not": operator.not_,
    "and": lambda promise: promise and 1,
    "f-string": lambda promise: f"{promise}",
    "format": lambda promise: format(promise, ">10"),
    "str": str,
    "percent": lambda promise: "%s" % promise,  # noqa: UP031
    "bytes": bytes,
    "path": os.fspath,
    "int": int,
    "float": float,
    "complex": complex,
    "index": lambda promise: [1, 2][promise],
    "range": range,
    "round": round,
    "trunc": math.trunc,
    "floor": math.floor,
    "ceil": math.ceil,
    "negative": operator.neg,
    "positive": operator.pos,
    "abs": abs,
    "invert": operator.invert,
    "divmod": lambda promise: divmod(promise, 2),
    "reflected divmod": lambda promise: divmod(2, promise),
    "less": lambda promise: promise < 1,
    "at most": lambda promise: promise <= 1,
    "greater": lambda promise: promise > made(8),
    "at least": lambda promise: promise >= 1,
    "sorted": lambda promise: sorted([promise, made(8)]),
    "len": len,
    "for": list,
    "unpack": unpack,
    "next": next,
    "reversed": reversed,
    "in": lambda promise: 1 in promise,
    "sum": lambda promise: sum([promise]),
    "item": lambda promise: promise[0],
    "slice": lambda promise: promise[1:],
    "set item": change_item,
    "delete item": drop_item,
    "call": lambda promise: promise(1, key=2),
    "star": lambda promise: print(*promise),
    "with": in_context,
    "in place": add_in_place,
    "await": lambda promise: asyncio.run(wait_for(promise)),
    "async for": lambda promise: asyncio.run(go_through(promise)),
    "async with": lambda promise: asyncio.run(enter_async(promise)),
    "numpy scalar": lambda promise: np.float64(2) + promise,
    "numpy array": lambda promise: np.arange(3) * promise,
    "numpy reflected": lambda promise: promise - np.arange(3),
}
for _operator in (
    operator.add, operator.sub, operator.mul, operator.matmul, operator.truediv, operator.floordiv, operator.mod,
    operator.pow, operator.lshift, operator.rshift, operator.and_, operator.xor, operator.or_,
):  # fmt: skip
    USES[_operator.__name__] = functools.partial(lambda op, promise: op(promise, 2), _operator)
    USES[f"{_operator.__name__} reflected"] = functools.partial(lambda op, promise: op(2, promise), _operator)
    USES[f"{_operator.__name__} of two"] = functools.partial(lambda op, promise: op(promise, made(8)), _operator)
PLAIN = [0, 1.5, 2j, True, "text", b"bytes", [1], (1,), {"a": 1}, {1}, frozenset({1}), bytearray(b"x"), deque()]


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_using_a_promise_as_its_value_says_whose_it_is_and_what_to_do(use: Callable[[Any], object]) -> None:
    with pytest.raises(PromiseMisuse) as raised:
        use(made())
    message = str(raised.value)
    assert "this is a promise of `MyTask.perform_work`, made at app.py:12" in message
    assert "pass it to another @dagorama method, or return it" in message


@pytest.mark.parametrize("data", PLAIN, ids=repr)
def test_comparing_with_plain_data_is_a_misuse_either_way_round(data: object) -> None:
    for compare in (operator.eq, operator.ne):
        with pytest.raises(PromiseMisuse):
            compare(made(), data)
        with pytest.raises(PromiseMisuse):
            compare(data, made())


def test_comparing_with_an_array_is_a_misuse_either_way_round() -> None:
    for left, right in [(made(), np.arange(3)), (np.arange(3), made()), (np.float64(1), made())]:
        with pytest.raises(PromiseMisuse):
            _ = left == right


def test_asking_for_an_attribute_of_the_value_is_a_misuse_and_an_attribute_error() -> None:
    with pytest.raises(PromiseAttribute, match=r"'name'.*MyTask\.perform_work.*app\.py:12") as raised:
        _ = made().name
    assert isinstance(raised.value, AttributeError)
    assert isinstance(raised.value, PromiseMisuse)


def test_setting_or_deleting_an_attribute_of_the_value_is_a_misuse() -> None:
    promise = made()
    with pytest.raises(PromiseMisuse, match="setting its attribute 'total'"):
        promise.total = 3
    with pytest.raises(PromiseMisuse, match="deleting its attribute 'total'"):
        del promise.total


def test_names_that_begin_with_an_underscore_raise_the_plain_error() -> None:
    with pytest.raises(AttributeError) as raised:
        _ = made()._private
    assert not isinstance(raised.value, PromiseMisuse)
    assert not hasattr(made(), "_x")
    assert getattr(made(), "__wrapped__", "none") == "none"


def test_promises_of_one_node_are_equal_and_hash_alike() -> None:
    promise = made(7)
    assert promise == made(7)
    assert promise == DAGPromise(identifier=promise.identifier)
    assert promise != made(8)
    assert len({promise, made(7), made(8)}) == 2
    assert [made(8), promise].index(promise) == 1


VALUES = [
    None, object(), int, len, date(2026, 1, 1), timedelta(1), UUID(int=1), Path("a"), Decimal(1), Fraction(1, 2), ANY,
    re.compile("a"), np.float64(1), np.array([1]), pd.Timestamp(0), Exception(),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_comparing_a_promise_with_what_is_no_promise_is_refused(value: object) -> None:
    for compare in (operator.eq, operator.ne):
        with pytest.raises(PromiseMisuse, match=r"comparing with .* needs a value that does not exist yet"):
            compare(made(), value)
        if value is not ANY:  # which equals everything, and is asked first here
            with pytest.raises(PromiseMisuse):
                compare(value, made())


def test_a_promise_is_not_looked_for_among_values() -> None:
    for where in ([object(), None], (1,), {"a": 1}.values()):
        with pytest.raises(PromiseMisuse, match="comparing with"):
            _ = made() in where
    with pytest.raises(PromiseMisuse):
        _ = None in [made()]
    with pytest.raises(PromiseMisuse):
        _ = (made(), 1) == (2, 1)
    assert made(7) in [made(8), made(7)]


def test_a_promise_has_a_text_id_and_a_way_back() -> None:
    promise = made()
    text = str(promise.identifier)
    assert DAGPromise(identifier=UUID(text)) == promise
    assert DAGPromise(text) == promise


def test_a_node_id_is_the_origin_and_the_counter_big_endian() -> None:
    assert made(258).node_id == ORIGIN + b"\x00\x00\x01\x02"
    assert made(258).identifier == UUID(bytes=made(258).node_id)
    assert made().instance_id == UUID(bytes=INSTANCE)


def test_a_promise_made_from_an_identifier_alone_knows_nothing_else() -> None:
    promise: DAGPromise[int] = DAGPromise[int](identifier=uuid4())
    assert (promise.instance_id, promise.function_name, promise.arguments) == (None, None, None)
    with pytest.raises(PromiseMisuse, match="this is a promise; pass it"):
        bool(promise)


def test_the_originals_constructor_keeps_what_it_is_given() -> None:
    arguments = DAGArguments([1], {"b": 2})
    promise: DAGPromise[int] = DAGPromise(uuid4(), "module:Class.method", arguments)
    assert promise.function_name == "module:Class.method"
    assert promise.arguments is arguments


def test_a_called_promise_knows_its_arguments() -> None:
    assert made(7, 1, "two", three=3).arguments == DAGArguments((1, "two"), {"three": 3})


def test_a_pickled_promise_keeps_all_but_its_arguments() -> None:
    promise = made(7, object, lock=None)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(promise, protocol))
        assert again == promise
        assert (again.instance_id, again.function_name) == (promise.instance_id, promise.function_name)
        assert repr(again) == repr(promise)
        assert again.arguments is None


def test_a_promise_whose_arguments_cannot_be_pickled_can() -> None:
    assert pickle.loads(pickle.dumps(made(7, lambda: None))) == made(7)


def test_copies_of_a_promise_are_the_promise() -> None:
    promise = made(7, [1])
    assert copy.copy(promise) is promise
    assert copy.deepcopy({"deep": [promise]})["deep"][0] is promise


def test_promises_live_in_dataclasses() -> None:
    default = made(8)

    @dataclasses.dataclass(frozen=True)
    class Held:
        total: Any
        fallback: Any = default

    held = Held(made())
    assert held == Held(made())
    assert hash(held) == hash(Held(made()))
    assert dataclasses.asdict(held) == {"total": made(), "fallback": made(8)}
    assert dataclasses.replace(held, fallback=None).total == made()


def test_promises_are_arguments_of_cached_and_partial_functions() -> None:
    calls: list[object] = []
    cached = functools.lru_cache(calls.append)
    cached(made())
    cached(made())
    assert calls == [made()]
    assert functools.partial(lambda promise: promise, made())() == made()


def test_printing_tools_show_a_promise() -> None:
    text = repr(made())
    assert text == f"<DAGPromise {made().identifier} of `MyTask.perform_work`, made at app.py:12>"
    assert f"{made()!r}" == text
    assert pprint.pformat({"a": [made()]}).count(text) == 1
    assert text in repr(ValueError(made()))


def test_repr_never_raises() -> None:
    assert "not initialized" in repr(object.__new__(DAGPromise))
    odd: DAGPromise[int] = DAGPromise(uuid4(), "no colon")
    assert "`no colon`" in repr(odd)


def test_a_super_call_is_shown_by_its_method() -> None:
    promise: DAGPromise[int] = DAGPromise(uuid4(), "shop:Sub.work@shop:Base")
    assert "`Sub.work`" in repr(promise)


def test_isinstance_works_with_and_on_promises() -> None:
    assert isinstance(made(), DAGPromise)
    assert not isinstance(made(), (int, str, list))


def test_a_promise_is_immutable_and_has_no_dict() -> None:
    assert not hasattr(made(), "__dict__")
    for name in ("identifier", "node_id", "_record"):
        with pytest.raises(AttributeError):
            setattr(made(), name, None)


def test_a_long_chain_of_promises_is_let_go_without_recursion() -> None:
    promise = made(0)
    for counter in range(1, 200_000):
        promise = made(counter, promise)
    text = repr(promise)
    del promise
    assert "MyTask" in text


def test_a_set_of_promises_can_be_printed_without_sorting() -> None:
    assert pprint.pformat({made(1), made(2)}).count("DAGPromise") == 2


@pytest.mark.parametrize("bad", [0, 1.5, None, b"", [], True])
def test_an_identifier_of_another_type_is_named(bad: object) -> None:
    with pytest.raises(TypeError, match=f"given as a UUID or its text, not as {type(bad).__name__}"):
        DAGPromise(bad)  # type: ignore[arg-type]  # as a caller without a checker may
    with pytest.raises(ValueError, match="a UUID or its text, and 'x' is neither"):
        DAGPromise("x")
