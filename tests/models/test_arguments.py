"""Arguments of a call as the original's callers know them."""

import pickle
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest

from dagorama.errors import ValueNotReadable
from dagorama.models.arguments import DAGArguments
from dagorama.models.promise import DAGPromise


class Holder:
    def __init__(self, inner: Any) -> None:
        self.inner = inner


def test_arguments_come_back_from_their_bytes() -> None:
    arguments = DAGArguments([1, "two", Counter("aab")], {"three": (3,)})
    again = DAGArguments.from_server_bytes(arguments.to_server_bytes())
    assert again == arguments
    assert type(again.calltime_args[2]) is Counter


def test_promises_travel_as_their_identifiers_alone_wherever_they_stand() -> None:
    source: DAGPromise[int] = DAGPromise(uuid4(), "module:Class.method", DAGArguments([lambda: None], {}))
    arguments = DAGArguments([source, {"a": [source]}], {"holder": Holder(source)})
    again = DAGArguments.from_server_bytes(arguments.to_server_bytes())
    found = [again.calltime_args[0], again.calltime_args[1]["a"][0], again.calltime_kwargs["holder"].inner]
    assert found == [source] * 3
    assert [(promise.function_name, promise.arguments) for promise in found] == [(None, None)] * 3
    assert source.function_name == "module:Class.method"


def test_bytes_of_something_else_are_refused() -> None:
    with pytest.raises(ValueNotReadable, match="hold a list"):
        DAGArguments.from_server_bytes(pickle.dumps([1]))
