"""The names of this package in pickles: stored values contain them, so they may be added to and never change."""

from __future__ import annotations

import pickle
import pickletools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

import pytest

from dagorama import (
    CurrentNode,
    DAGDefinition,
    DAGInstance,
    DAGPromise,
    ExponentialRetry,
    FailedAttempt,
    Failure,
    Retried,
    State,
    StaticRetry,
    dagorama,
    errors,
    outcome,
)
from dagorama.graph.constructor_arguments import packed
from dagorama.models import stored
from dagorama.models.arguments import DAGArguments
from dagorama.models.state import Unschedulable
from dagorama.models.value_ref import ValueRef
from dagorama.values.codec import encode, encode_call
from dagorama.values.envelope import content, size_of

PROMISE: DAGPromise[int] = DAGPromise(identifier=UUID(int=1))
NODE = UUID(int=2)


class Dag(DAGDefinition):
    def __init__(self, resource: object = None) -> None:
        self.resource = resource

    @dagorama()
    def entrypoint(self) -> int:
        return 1


def names_in(pickled: bytes | memoryview) -> set[str]:
    """Return the names of this package in a pickle, as "module name"."""
    found = set[str]()
    texts: list[Any] = []
    memo: list[Any] = []
    for opcode, argument, _ in pickletools.genops(bytes(pickled)):
        if "UNICODE" in opcode.name:
            texts.append(argument)
        elif opcode.name == "MEMOIZE":
            memo.append(texts[-1] if texts else None)
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            texts.append(memo[int(argument or 0)])
        elif opcode.name == "STACK_GLOBAL":
            found.add(f"{texts[-2]} {texts[-1]}")
    return {name for name in found if name.startswith("dagorama.")}


def in_envelope(envelope: bytes) -> set[str]:
    return names_in(content(envelope))


def in_pickle(value: object) -> set[str]:
    return names_in(pickle.dumps(value, 5))


def reference(size: int) -> ValueRef:
    envelope = encode(b"x" * size, large_from=1000, put_large=lambda data: bytes(32)).envelope
    return ValueRef(envelope, "bytes", size_of(envelope), None)


def constructor_with_a_lock() -> set[str]:
    constructor = packed(Dag(Lock()), lambda data: bytes(32))
    assert isinstance(constructor, bytes)
    return in_envelope(constructor)


KINDS: dict[str, tuple[Callable[[], set[str]], set[str]]] = {
    "a promise": (lambda: in_pickle(PROMISE), {"dagorama.models.stored promise"}),
    "an outcome": (lambda: in_pickle(outcome(PROMISE)), {"dagorama.models.stored outcome"}),
    "a reference of put()": (lambda: in_pickle(reference(10)), {"dagorama.models.stored value_ref"}),
    "a promise among arguments": (
        lambda: in_envelope(encode_call((PROMISE,), {}).envelope),
        {"dagorama.models.stored promise_value"},
    ),
    "an outcome among arguments": (
        lambda: in_envelope(encode_call((outcome(PROMISE),), {}).envelope),
        {"dagorama.models.stored outcome_value"},
    ),
    "a put() value among arguments": (
        lambda: in_envelope(encode_call((reference(10),), {}).envelope),
        {"dagorama.models.stored put_value"},
    ),
    "a large put() value among arguments": (
        lambda: in_envelope(encode_call((reference(5000),), {}).envelope),
        {"dagorama.models.stored put_value"},
    ),
    "an instance": (lambda: in_pickle(DAGInstance(NODE, Dag())), {"dagorama.models.stored instance"}),
    "the type of an instance": (
        lambda: in_pickle(type(DAGInstance(NODE, Dag()))),
        {"dagorama.models.stored instance_type"},
    ),
    "a definition with arguments": (lambda: in_pickle(Dag(1)), {"dagorama.models.stored constructed"}),
    "constructor arguments with a lock": (constructor_with_a_lock, {"dagorama.models.stored Unsent"}),
    "a failure": (
        lambda: in_pickle(Failure("m:C.f", earlier=(FailedAttempt("builtins.OSError", "", ""),))),
        {"dagorama.models.failure Failure", "dagorama.errors FailedAttempt"},
    ),
    "arguments of 0.1.10": (
        lambda: names_in(DAGArguments([PROMISE], {}).to_server_bytes()),
        {"dagorama.models.arguments DAGArguments", "dagorama.models.promise DAGPromise"},
    ),
    "a state": (lambda: in_pickle(State.QUEUED), {"dagorama.models.state State"}),
    "the result of a retry": (
        lambda: in_pickle(Retried(1, 2, unservable=(Unschedulable("m:C.f", "1", (), ""),))),
        {"dagorama.models.state Retried", "dagorama.models.state Unschedulable"},
    ),
    "the current node": (
        lambda: in_pickle(CurrentNode(NODE, NODE, 1, "m:C.f")),
        {"dagorama.context CurrentNode"},
    ),
    "retry policies": (
        lambda: in_pickle([StaticRetry(3, 1), ExponentialRetry(3)]),
        {"dagorama.retry StaticRetry", "dagorama.retry ExponentialRetry"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_has_these_names(kind: str) -> None:
    names, expected = KINDS[kind]
    assert names() == expected


@pytest.mark.parametrize("name", [name for name in dir(errors) if name[0].isupper()])
def test_an_error_is_named_by_the_module_of_errors(name: str) -> None:
    error: Any = getattr(errors, name)
    if isinstance(error, type) and issubclass(error, errors.DagoramaError):
        assert in_pickle(error) == {f"dagorama.errors {name}"}


SCRIPT = """
from enum import Enum
from functools import cache, singledispatch
from dagorama import DAGDefinition, dagorama
from dagorama.values.by_value import dumps

MISSING = object()

class Colour(Enum):
    RED = 1

class Plain:
    pass

class Dag(DAGDefinition):
    @dagorama()
    def entrypoint(self, default=MISSING):
        return default

def function(default=MISSING):
    return default

@cache
def cached():
    return 1

@singledispatch
def chosen(value):
    return value

if __name__ == "__main__":
    import sys
    sys.stdout.write(dumps((MISSING, Colour.RED, Plain(), function, cached, chosen, Dag, lambda: 1)).hex())
"""

OF_A_SCRIPT = {
    "dagorama.definition DAGDefinition",
    "dagorama.models.stored DecoratedFunction",
    "dagorama.models.stored Options",
    "dagorama.models.stored cached_function",
    "dagorama.models.stored code",
    "dagorama.models.stored fill_dispatch",
    "dagorama.models.stored fill_local",
    "dagorama.models.stored local_class",
    "dagorama.models.stored local_function",
    "dagorama.models.stored sentinel",
    "dagorama.models.stored single_dispatch",
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["script.py"], OF_A_SCRIPT), (["-m", "script"], {"dagorama.models.stored imported"})],
    ids=["as a file", "as a module"],
)
def test_what_a_script_defines_has_these_names(tmp_path: Path, arguments: list[str], expected: set[str]) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    ran = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert expected <= names_in(bytes.fromhex(ran.stdout)) <= OF_A_SCRIPT | expected


def test_a_reader_finds_each_name_without_having_imported_its_module() -> None:
    read = (
        "import pickle, sys\n"
        "from dagorama.models import stored\n"
        "for name in sorted(stored._HOMES):\n"
        "    found = pickle.loads(b'cdagorama.models.stored\\n' + name.encode() + b'\\n.')\n"
        "    assert (found.__module__, found.__qualname__) == ('dagorama.models.stored', name), name\n"
        "print(*sorted(stored._HOMES))"
    )
    ran = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [
        "Cache", "DecoratedFunction", "Limit", "Options", "Rate", "Unsent", "cached_function", "code", "constructed",
        "fill_dispatch", "fill_local", "imported", "instance", "instance_type", "local_class", "local_function",
        "outcome", "outcome_value", "promise", "promise_value", "put_value", "sentinel", "single_dispatch",
        "type_alias", "value_ref",
    ]  # fmt: skip


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        stored.nothing  # noqa: B018  # asking for it is what is tested
