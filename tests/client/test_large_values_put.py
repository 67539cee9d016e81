"""put(): stored once, given many times, and never used as the value where only its name is."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dagorama import DAGDefinition, NotPicklable, PromiseMisuse, dagorama, put, resolve
from dagorama.models.value_ref import ValueRef
from dagorama.values.codec import encode, encode_call
from dagorama.values.envelope import PLAIN
from tests.support.recording_broker import RecordingBroker

LARGE = bytes(range(256)) * 4096


class Sample(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, given: Any) -> Any:
        return self.echo(given)

    @dagorama().syncfn
    def echo(self, given: Any) -> Any:
        return given

    @dagorama().syncfn
    def made(self) -> Any:
        return {"kept": put(LARGE)}


class Plain(DAGDefinition):
    def entrypoint(self, given: bytes) -> bytes:
        return put(given)


def resolved(broker: RecordingBroker, given: Any) -> Any:
    instance, promise = Sample()(given)
    broker.run()
    return resolve(instance, promise)


def test_a_value_is_stored_once_however_often_it_is_given(broker: RecordingBroker) -> None:
    kept = put(LARGE)
    instance, _ = Sample()(kept)
    promises = [instance.echo([kept, number]) for number in range(5)]
    assert broker.uploads == 1
    assert all(len(node.arguments) < 500 for node in broker.nodes.values())
    (digest,) = broker.large
    assert all(list(run.large) == [digest] for request in broker.requests for run in request.nodes)
    broker.run()
    assert resolve(instance, promises[3]) == [LARGE, 3]


@pytest.mark.parametrize("value", [0, None, "text", [], {"a": (1, 2)}, LARGE, ["y" * 400_000], bytearray(LARGE)])
def test_a_node_that_is_given_it_gets_the_plain_value(broker: RecordingBroker, value: Any) -> None:
    found = resolved(broker, {"inside": [put(value)]})["inside"][0]
    assert (type(found), found) == (type(value), value)


def test_what_is_small_stays_in_the_reference(broker: RecordingBroker) -> None:
    kept = put({"small": 1})
    assert not broker.uploads
    assert resolved(broker, kept) == {"small": 1}


def test_arrays_come_writable_and_apart(broker: RecordingBroker) -> None:
    array = np.arange(100_000.0)
    kept = put({"array": array, "name": "x"})
    one, two = resolved(broker, [kept, put({"array": array, "name": "y"})])
    assert (one["array"] == array).all()
    one["array"][0] = 7
    assert two["array"][0] == 0
    assert len(broker.large) == 1


def test_the_same_reference_twice_is_one_object(broker: RecordingBroker) -> None:
    kept: Any = put([1, 2])
    one, two = resolved(broker, [kept, kept])
    assert one is two


def test_a_reference_in_a_value_that_is_put_is_its_value_too(broker: RecordingBroker) -> None:
    inner, array = put(LARGE), np.ones(50_000)
    assert put(inner) is inner
    first, (second, found) = resolved(broker, [put([inner, 1]), put((inner, array))])
    assert (first, second) == ([LARGE, 1], LARGE)
    assert (found == array).all()


def test_a_node_may_put_and_return_it(broker: RecordingBroker) -> None:
    instance, _ = Sample()(1)
    promise = instance.made()
    broker.run()
    assert resolve(instance, promise) == {"kept": LARGE}


def test_what_a_plain_entry_point_has_put_is_read_by_resolve(broker: RecordingBroker) -> None:
    assert resolve(*Plain()(LARGE)) == LARGE


def test_large_values_and_references_go_together(broker: RecordingBroker) -> None:
    kept = put(LARGE)
    array, text = np.zeros(40_000), "z" * 300_000
    assert len(resolved(broker, [array, kept, text, array[::-1].copy(), kept])) == 5


def test_a_promise_cannot_be_put(broker: RecordingBroker) -> None:
    _, promise = Sample()(1)
    for value in (promise, [1, promise]):
        with pytest.raises(PromiseMisuse, match=r"put\(\) was given a .*test_large_values_put.py.*pass the promise"):
            put(value)
    assert not broker.uploads


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(NotPicklable, match=r"value given to put\(\)\[1\]"):
        put([1, (number for number in range(3))])


USES: dict[str, Callable[[Any], Any]] = {
    "truth": bool,
    "sum": lambda kept: kept + 1,
    "text": lambda kept: f"{kept}",
    "length": len,
    "item": lambda kept: kept[0],
    "loop": list,
    "call": lambda kept: kept(),
    "attribute": lambda kept: kept.shape,
    "assignment": lambda kept: setattr(kept, "shape", 1),
    "comparison": lambda kept: kept == [1],
    "array": lambda kept: np.ones(3) + kept,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_using_it_as_the_value_says_what_it_is(use: Callable[[Any], Any]) -> None:
    kept = put([1, 2, 3])
    said = r"put\(\) has returned.*list of \d+ bytes, put at .*test_large_values_put.py:\d+"
    with pytest.raises(PromiseMisuse, match=said):
        use(kept)


def test_it_can_be_shown_copied_compared_and_pickled() -> None:
    kept: Any = put([1, 2, 3])
    assert repr(kept).startswith("<kept list of ")
    assert copy.deepcopy({"a": kept})["a"] is kept
    assert pickle.loads(pickle.dumps(kept)) == kept
    assert len({kept, put([1, 2, 3]), put([1, 2])}) == 2
    assert repr(ValueRef.__new__(ValueRef)) == "<kept value, not initialized>"


def test_a_small_call_with_one_is_pickled_as_plainly_as_any_other() -> None:
    assert encode_call((put(1),), {}).envelope[:2] == PLAIN
    assert encode([put("a")]).envelope[:2] == PLAIN
