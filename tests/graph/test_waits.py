"""Signals as users see them: nodes that wait, values that are sent, and what is refused. All of it on the real broker.

The inline world has the clock: a test skips to a timeout.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any, cast
from uuid import uuid4

import pytest

from dagorama import (
    BrokerOverloaded,
    DAGDefinition,
    DAGInstance,
    DAGPromise,
    Failure,
    NodeCancelled,
    NodeFailed,
    NotFound,
    NotInInstance,
    RequestRejected,
    SignalTimeout,
    State,
    TypeMismatch,
    cancel,
    dagorama,
    outcome,
    resolve,
    retry_failed,
    send,
    start,
    state,
    wait_for,
)
from dagorama.api import broker_pb2 as pb
from dagorama.client.connection import connection
from dagorama_testing import NothingHappens, inline, run_inline

HOUR = 3600.0


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True)
class Decision:
    yes: bool
    note: str = ""
    size: Size = Size.SMALL


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError("it is odd")


class Order(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int) -> str:
        decision = wait_for("approval", Decision, timeout=HOUR)
        return self.ship(self.price(number), decision)

    @dagorama
    def price(self, number: int) -> int:
        return number * 10

    @dagorama
    def ship(self, price: int, decision: Decision) -> str:
        return f"{price} {decision}"


class Plain(DAGDefinition):
    """Waits in an entry point that is not decorated, twice for the same name."""

    def entrypoint(self) -> list[Any]:
        return [wait_for("number", int), wait_for("number", int)]


def numbers() -> tuple[DAGInstance, list[DAGPromise[int]]]:
    """Start Plain, whose entry point returns a list of promises."""
    found: Any = Plain()()
    return cast("tuple[DAGInstance, list[DAGPromise[int]]]", found)


class WithDefault(DAGDefinition):
    async def entrypoint(self) -> Decision:
        return await self.passed_on(wait_for("approval", Decision, timeout=HOUR, default=Decision(False, "too late")))

    @dagorama
    async def passed_on(self, decision: Decision) -> Decision:
        return decision


class Careful(DAGDefinition):
    @dagorama
    def entrypoint(self) -> str:
        return self.look(outcome(wait_for("go", bool, timeout=HOUR)))

    @dagorama
    def look(self, go: bool | Failure) -> str:
        return go.type if isinstance(go, Failure) else f"{go}"


class Early(DAGDefinition):
    """Begins to wait only when its first node has run."""

    @dagorama
    def entrypoint(self) -> str:
        return self.then(self.first())

    @dagorama
    def first(self) -> int:
        return 1

    @dagorama
    def then(self, number: int) -> str:
        return self.last(wait_for("word", str, timeout=HOUR))

    @dagorama
    def last(self, word: str) -> str:
        return word


class Patient(Early):
    @dagorama
    def then(self, number: int) -> str:
        return self.last(wait_for("word", str))


class AsJson(DAGDefinition):
    @dagorama
    def entrypoint(self) -> Decision:
        return self.same(wait_for("approval", Decision))

    @dagorama(codec="json")
    def same(self, decision: Decision) -> Decision:
        return decision


def test_a_node_is_given_the_value_that_was_sent_to_its_instance() -> None:
    with inline() as world:
        instance, promise = Order()(4)
        assert world.run(nodes=2) == 2, "the entry point and the price"
        assert state(instance, promise) is State.RESOLVING
        assert send(instance, "approval", Decision(True, "fine", Size.LARGE))
        assert world.run() == 1
        assert resolve(instance, promise) == f"40 {Decision(True, 'fine', Size.LARGE)}"
        assert world.clock.passed == 0


def test_the_wait_is_a_promise_that_a_client_resolves() -> None:
    with inline() as world:
        instance, promises = numbers()
        send(instance, "number", 1)
        send(instance, "number", 2)
        world.run()
        assert [resolve(instance, promise) for promise in promises] == [1, 2]


def test_json_functions_and_plain_data_take_signals_too() -> None:
    with inline() as world:
        instance, promise = AsJson()()
        world.run()
        send(str(instance.instance_id), "approval", {"yes": True, "note": "", "size": "large"})
        world.run()
        assert resolve(instance, promise) == Decision(True, size=Size.LARGE)


def test_a_signal_that_comes_first_is_kept_for_the_node() -> None:
    with inline() as world:
        instance, promise = Early()()
        send(instance.instance_id, "word", "early")
        world.restart_broker()
        world.run()
        assert resolve(instance, promise) == "early"


def test_a_signal_that_is_sent_twice_is_two_signals_and_one_with_a_key() -> None:
    with inline() as world:
        instance, promises = numbers()
        assert send(instance, "number", 7, key="a")
        assert not send(instance, "number", 7, key="a")
        with pytest.raises(RequestRejected, match="the key 'a' was sent to this instance before, with another value"):
            send(instance, "number", 8, key="a")
        assert state(instance, promises[1]) is State.WAITING
        world.restart_broker()
        assert not send(instance, "number", 7, key="a")
        assert send(instance, "number", 7)
        world.run()
        assert [resolve(instance, promise) for promise in promises] == [7, 7]
        assert not send(instance, "number", 7, key="a"), "also after the end of the instance"


def test_names_and_keys_that_cannot_be_sent_are_refused_by_their_name() -> None:
    with inline():
        instance, _ = numbers()
        with pytest.raises(ValueError, match=r"^key is '\\ud800', which has a lone surrogate"):
            send(instance, "number", 7, key="\ud800")
        with pytest.raises(ValueError, match=r"^name is 'n\\udcff', which has a lone surrogate"):
            send(instance, "n\udcff", 7)
        with pytest.raises(TypeError, match=r"^the name of a signal is 3: it must be a str$"):
            send(instance, 3, 7)  # type: ignore[arg-type]  # that is the mistake


def test_a_wait_fails_after_its_timeout_and_later_signals_are_refused() -> None:
    with inline() as world:
        instance, promise = Order()(1)
        world.run()
        assert world.clock.passed == HOUR
        with pytest.raises(SignalTimeout, match=r"the signal 'approval' did not come within 3600 s \(timeout\)"):
            resolve(instance, promise)
        with pytest.raises(RequestRejected, match=r"the instance has ended at .*, so that no node of it waits for"):
            send(instance, "approval", Decision(True))


def test_a_wait_that_timed_out_waits_again_when_it_is_retried() -> None:
    with inline() as world:
        instance, promise = Order()(1)
        world.run()
        retry_failed(instance)
        world.clock.advance(HOUR / 2)
        world.restart_broker()
        world.clock.advance(HOUR / 4)
        assert state(instance, promise) is State.RESOLVING
        send(instance, "approval", Decision(True))
        world.run()
        assert resolve(instance, promise) == f"10 {Decision(True)}"


def test_a_late_signal_is_refused_while_the_instance_goes_on() -> None:
    class Outliving(DAGDefinition):
        @dagorama
        def entrypoint(self) -> str:
            return self.both(outcome(wait_for("a", int, timeout=HOUR)), wait_for("b", int))

        @dagorama
        def both(self, a: int | Failure, b: int) -> str:
            return f"{a!r} {b}"

    with inline() as world:
        instance, _ = Outliving()()
        world.clock.advance(2 * HOUR)
        world.restart_broker()
        late = "no node waits for the signal 'a' any longer: the node that waited for it has failed at .*after its"
        with pytest.raises(RequestRejected, match=late):
            send(instance, "a", 1)
        send(instance, "b", 1)


def test_a_default_is_taken_after_the_timeout() -> None:
    assert run_inline(WithDefault()) == Decision(False, "too late")


def test_a_failure_of_a_wait_may_be_taken_as_a_value() -> None:
    assert run_inline(Careful()) == "dagorama.errors.SignalTimeout"


def test_a_restart_keeps_what_is_left_of_a_timeout() -> None:
    with inline() as world:
        instance, promise = Order()(1)
        world.clock.advance(HOUR - 60)
        world.restart_broker()
        world.clock.advance(50)
        assert state(instance, promise) is State.RESOLVING
        world.run()
        assert HOUR <= world.clock.passed < HOUR + 10
        assert state(instance, promise) is State.FAILED


def test_a_wait_is_cancelled_like_any_node() -> None:
    with inline() as world:
        instance, promises = numbers()
        assert cancel(instance, promises[0]) == 1
        send(instance, "number", 2)
        assert resolve(instance, promises[1]) == 2
        with pytest.raises(NodeCancelled):
            resolve(instance, promises[0])
        assert world.runs == []


def test_a_value_of_another_type_is_refused_when_it_is_sent_if_that_is_plain() -> None:
    with inline() as world:
        instance, _ = Order()(1)
        world.run(nodes=2)
        for value, why in (
            ({"no": True}, "lacks 'yes'"),
            ({"yes": "maybe", "note": "", "size": "small"}, 'is "maybe" at .yes, and a JSON boolean is expected'),
            ({"yes": True, "note": "", "size": "huge"}, 'is "huge" at .size, and one of'),
            (3, "is 3, and a JSON object is expected"),
        ):
            with pytest.raises(RequestRejected, match=why):
                send(instance, "approval", value)
        assert send(instance, "approval", Decision(True))


def test_a_kept_value_of_another_type_is_passed_over_and_explained() -> None:
    with inline() as world:
        instance, promise = Patient()()
        send(instance, "word", {"not": "text"})
        send(instance, "wrod", "typo")
        for _ in range(2):
            with pytest.raises(NothingHappens) as caught:
                resolve(instance, promise, timeout=inf)
            assert (
                'of this name 1 are kept that do not fit its type (the first one is {"not": "text"}'
                in f"{caught.value}"
            )
            assert "signals are kept of other names: 'wrod' (1)" in f"{caught.value}"
            world.restart_broker()
        send(instance, "word", "text")
        world.run()
        assert resolve(instance, promise) == "text"


def test_a_kept_value_that_fits_is_taken_from_behind_one_that_does_not() -> None:
    with inline() as world:
        instance, promise = Early()()
        for value in (5, "first", "second"):
            send(instance, "word", value, key=f"{value}")
        world.restart_broker()
        world.run()
        assert resolve(instance, promise) == "first"
        assert not send(instance, "word", "first", key="first")


class Checked(DAGDefinition):
    def entrypoint(self) -> tuple[str, int, Even]:
        even = wait_for("even", Even, timeout=HOUR, default=Even(0))
        return self.used(even), self.other(), even

    @dagorama
    def used(self, even: Even) -> str:
        return f"{even.number}"

    @dagorama
    def other(self) -> int:
        return 1


def checked() -> tuple[DAGInstance, DAGPromise[str], DAGPromise[int], DAGPromise[Even]]:
    found: Any = Checked()()
    instance, (used, other, wait) = found
    return instance, used, other, wait


def test_a_wrong_value_that_only_the_worker_can_tell_fails_the_node_that_uses_it_with_its_name() -> None:
    with inline() as world:
        instance, used, _, _ = checked()
        send(instance, "even", {"number": 3})
        world.run()
        with pytest.raises(NodeFailed, match="the signal 'even'") as caught:
            resolve(instance, used)
        assert caught.value.type == "dagorama.errors.TypeMismatch"
        assert caught.value.function.endswith("Checked.used")


def test_a_wait_with_a_wrong_value_waits_again_when_it_is_retried_downstream() -> None:
    with inline() as world:
        instance, used, other, wait = checked()
        send(instance, "even", {"number": 3}, key="first")
        world.run()
        assert not retry_failed(instance, wait)
        assert retry_failed(instance, downstream=True) == 1
        world.run()
        assert (state(instance, used), state(instance, wait)) == (State.FAILED, State.COMPLETED)
        retried = retry_failed(instance, wait, downstream=True)
        assert (retried, retried.completed) == (2, 1)
        assert (state(instance, used), state(instance, wait)) == (State.WAITING, State.WAITING)
        world.clock.advance(HOUR / 2)
        world.restart_broker()
        assert not send(instance, "even", {"number": 3}, key="first")
        assert send(instance, "even", Even(4))
        world.run()
        assert (resolve(instance, used), resolve(instance, wait)) == ("4", Even(4))
        assert resolve(instance, other) == 1
        assert [run.function.rpartition(".")[2] for run in world.runs].count("other") == 1


def test_a_retry_that_is_repeated_takes_no_signal_away_that_came_meanwhile() -> None:
    with inline() as world:
        instance, used, _, wait = checked()
        send(instance, "even", Even(2))
        world.run()
        link, node = connection(), wait.node_id
        asked = pb.RetryRequest(instance=instance.instance_id.bytes, node=[node], downstream=True)
        look = link.retry(pb.RetryRequest(instance=asked.instance, node=[node], downstream=True, look=True))
        asked.waits.extend(look.waits)
        assert [each.node for each in look.waits] == [node]
        assert link.retry(asked).waiting == 2
        send(instance, "even", Even(4))
        world.run()
        reply = link.retry(asked)
        assert (reply.queued, reply.waiting) == (0, 0)
        assert resolve(instance, used) == "4"


def test_a_wait_that_is_retried_takes_a_kept_signal_or_its_default() -> None:
    with inline() as world:
        instance, used, _, wait = checked()
        send(instance, "even", Even(2))
        send(instance, "even", Even(6))
        world.run()
        assert resolve(instance, used) == "2"
        assert retry_failed(instance, wait, downstream=True) == 1  # the wait has its signal already
        world.run()
        assert resolve(instance, used) == "6"
        assert retry_failed(instance, wait, downstream=True) == 2
        world.run()
        assert (resolve(instance, used), world.clock.passed) == ("0", HOUR)
        assert retry_failed(instance, wait, downstream=True) == 2
        send(instance, "even", Even(8))
        world.run()
        assert resolve(instance, used) == "8"


def test_a_wait_is_not_retried_while_a_node_has_its_value() -> None:
    with inline() as world:
        instance, used, _, wait = checked()
        send(instance, "even", Even(2))
        with pytest.raises(RequestRejected, match="has not ended and depends on a node that would run again"):
            retry_failed(instance, wait, downstream=True)
        world.run()
        assert resolve(instance, used) == "2"


def test_a_restart_remembers_which_wait_of_a_name_has_ended_last() -> None:
    class Both(DAGDefinition):
        def entrypoint(self) -> list[Any]:
            return [wait_for("s", int), wait_for("s", int, timeout=HOUR, default=-1), wait_for("other", int)]

    with inline() as world:
        found: Any = Both()()
        instance, _ = found
        world.clock.advance(2 * HOUR)  # the second took its default
        send(instance, "s", 1)
        world.restart_broker()
        assert send(instance, "s", 2), "it is kept, because the wait that ended last got its signal"


def test_a_value_that_is_nested_too_deeply_is_refused() -> None:
    def nested(depth: int) -> object:
        data: object = 1
        for _ in range(depth):
            data = [data]
        return data

    with inline():
        instance, _ = Plain()()
        send(instance, "other", nested(100))
        for depth in (101, 200):
            with pytest.raises(RequestRejected, match="has more than 100 arrays and objects within each other"):
                send(instance, "other", nested(depth), type_=Any)


def test_the_sender_refuses_what_has_no_json_form_and_the_broker_what_is_too_large() -> None:
    with inline():
        instance, _ = Plain()()
        with pytest.raises(TypeMismatch, match="the signal 'number'"):
            send(instance, "number", float("nan"))
        with pytest.raises(TypeMismatch):
            send(instance, "number", object())
        with pytest.raises(TypeMismatch):
            send(instance, "number", "text", type_=int)
        with pytest.raises(RequestRejected, match="65,536 are allowed"):
            send(instance, "number", "x" * 65_535)
        with pytest.raises(RequestRejected, match="the name of a signal"):
            send(instance, "a name", 1)
        with pytest.raises(NotFound):
            send(uuid4(), "number", 1)
        with pytest.raises(ValueError, match="not the ID of an instance"):
            send("order-42", "number", 1)


def test_no_more_than_a_thousand_signals_are_kept() -> None:
    with inline() as world:
        instance, _ = Plain()()
        for number in range(1_000):
            send(instance, "other", number)
        with pytest.raises(BrokerOverloaded, match="1,000 signals 'other' are kept already"):
            send(instance, "other", 1)
        assert world.runs == []


def test_a_wait_needs_an_instance_a_type_with_a_json_form_and_a_timeout_for_its_default() -> None:
    with pytest.raises(NotInInstance, match="called outside of an instance"):
        wait_for("approval", bool)
    for arguments, error in (
        (("a name", bool), "the name of a signal"),
        (("name", bool, 0.0), "timeout"),
    ):
        with pytest.raises(ValueError, match=error):
            wait_for(arguments[0], arguments[1], timeout=arguments[2] if len(arguments) > 2 else None)
    with pytest.raises(ValueError, match="has a default and no timeout"):
        wait_for("name", bool, default=True)
    with pytest.raises(TypeMismatch):
        wait_for("name", Order)
    with pytest.raises(TypeMismatch, match="the default of the signal 'name'"):
        wait_for("name", bool, timeout=1, default="yes")


def test_an_instance_with_an_id_gets_signals_by_it() -> None:
    with inline() as world:
        start(Order(), id="order-1")(1)
        instance, promise = Order.attach(id="order-1")
        send(instance, "approval", Decision(True))
        world.run()
        assert resolve(instance, promise) == f"10 {Decision(True)}"


def test_a_test_that_waits_for_an_unsent_signal_fails_with_the_reason() -> None:
    with inline():
        instance, promises = numbers()
        with pytest.raises(NothingHappens, match="signal 'number'"):
            resolve(instance, promises[0], timeout=None)


def test_a_node_may_send_signals_to_other_instances() -> None:
    class Sender(DAGDefinition):
        @dagorama
        def entrypoint(self, id: str) -> bool:
            return send(id, "number", 5, key="only one")

    with inline() as world:
        instance, promises = numbers()
        Sender()(str(instance.instance_id))
        world.run()
        assert resolve(instance, promises[0]) == 5
