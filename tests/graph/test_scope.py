"""Scopes: calls become columns, and what reaches the broker reaches it whole."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from dagorama.client import chunks
from dagorama.client import connection as connection_module
from dagorama.client.large_values import LARGE_FROM
from dagorama.context import current_attempt
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, DAGInstance, instance_within
from dagorama.errors import NotInInstance, NotPicklable, RequestRejected, WrongInstance
from dagorama.graph.node_batch import NODE_LIMIT, FunctionTable, NodeBatch, references, submit_requests
from dagorama.graph.scope import AttemptScope
from dagorama.models.promise import DAGPromise
from dagorama.values.codec import decode_call
from dagorama.values.envelope import large_values
from tests.support.recording_broker import RecordingBroker, block_of

INSTANCE = b"i" * 16


class Sample(DAGDefinition):
    def entrypoint(self, pieces: int = 2, size: int = 0) -> Any:
        return self.join([self.work(number, b"x" * size) for number in range(pieces)])

    @dagorama().syncfn
    def work(self, number: int, ballast: bytes = b"") -> int:
        return number

    @dagorama().syncfn
    def join(self, *parts: Any) -> Any:
        return parts


@pytest.fixture
def attempt() -> AttemptScope:
    return AttemptScope(INSTANCE, put_large=lambda data: b"h" * 32)


@pytest.fixture
def inside(attempt: AttemptScope) -> Any:
    return instance_within(INSTANCE, Sample(), attempt)


# --- columns


def test_nodes_of_one_run_count_up(attempt: AttemptScope, inside: Any) -> None:
    promises = [inside.work(number) for number in range(3)]
    (run,) = attempt.runs
    assert [promise.node_id for promise in promises] == [run.origin + bytes([0, 0, 0, n]) for n in range(3)]
    message = run.to_message(FunctionTable())
    assert (message.instance, message.origin, message.first) == (INSTANCE, attempt.origin, 0)
    assert not message.source_count
    assert not message.HasField("creates")


def test_functions_are_sent_once(attempt: AttemptScope, inside: Any) -> None:
    inside.join(inside.work(1), inside.work(2))
    functions = FunctionTable()
    message = attempt.runs[0].to_message(functions)
    assert list(message.function) == [0, 0, 1]
    assert [function.name for function in functions.functions] == [f"{__name__}:Sample.work", f"{__name__}:Sample.join"]


def test_sources_are_counters_of_the_same_origin_each_once(attempt: AttemptScope, inside: Any) -> None:
    one, two = inside.work(1), inside.work(2)
    inside.join([two, one, {"again": two}])
    message = attempt.runs[0].to_message(FunctionTable())
    assert list(message.source_count) == [0, 0, 2]
    assert list(message.source) == [1, 0]
    assert not message.foreign


def test_sources_made_elsewhere_are_named_whole(attempt: AttemptScope, inside: Any) -> None:
    elsewhere = [DAGPromise[Any](UUID(int=number)) for number in (5, 6)]
    inside.join(elsewhere[0], inside.work(1), elsewhere[1])
    inside.join(elsewhere[1])
    message = attempt.runs[0].to_message(FunctionTable())
    assert list(message.source_count) == [0, 3, 1]
    assert list(message.source) == [-1, 0, -2, -2]
    assert list(message.foreign) == [promise.node_id for promise in elsewhere]


def test_references_keep_their_order() -> None:
    mine, other = b"o" * 12, b"p" * 16
    assert references(mine, [mine + bytes([0, 0, 1, 0]), other, other]) == ([256, -1, -1], [other])


def test_a_run_is_cut_into_pieces_that_fit(attempt: AttemptScope, inside: Any) -> None:
    for number in range(10):
        inside.work(number, b"x" * 1000)
    (run,) = attempt.runs
    pieces = list(run.pieces(2500))
    assert pieces == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]
    messages = [run.to_message(FunctionTable(), *piece) for piece in pieces]
    assert [message.first for message in messages] == [0, 2, 4, 6, 8]
    assert all(message.ByteSize() < 2500 for message in messages)


def test_what_has_been_sent_is_left_out(attempt: AttemptScope, inside: Any) -> None:
    for number in range(10):
        inside.work(number, b"x" * 1000)
    (run,) = attempt.runs
    assert list(run.pieces(2500, 5)) == [(5, 7), (7, 9), (9, 10)]
    assert list(run.pieces(2500, 10)) == [(10, 10)]


def test_what_makes_the_instance_goes_with_the_first_piece(broker: RecordingBroker) -> None:
    Sample()(40, 100_000)
    assert (broker.submissions, broker.streamed) == (0, 1)
    parts = [part for request in broker.requests for part in request.nodes]
    assert len(parts) > 1
    assert [part.HasField("creates") for part in parts] == [True] + [False] * (len(parts) - 1)
    assert all(request.ByteSize() < 4 * 1024 * 1024 for request in broker.requests)
    assert len(broker.nodes) == 41
    assert len(broker.called("join")[0].sources) == 40


def test_many_threads_may_add_to_a_run(attempt: AttemptScope, inside: Any) -> None:
    inside.work(0)
    made: list[bytes] = []

    def add() -> None:
        made.extend(inside.work(number).node_id for number in range(200))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 800
    nodes = {node.id: node for node in block_of(attempt.runs[0])}
    assert len(nodes) == 801


@pytest.mark.slow
def test_a_fan_in_of_two_hundred_thousand_fits_into_one_node(attempt: AttemptScope, inside: Any) -> None:
    inside.join([inside.work(0) for _ in range(200_000)])
    requests = submit_requests(attempt.runs[:1])
    assert sum(len(part.function) for request in requests for part in request.nodes) == 200_001
    assert all(request.ByteSize() < 4 * 1024 * 1024 for request in requests)


@pytest.mark.slow
def test_a_node_that_no_message_could_carry_is_refused(inside: Any, attempt: AttemptScope) -> None:
    wide = [DAGPromise[Any](UUID(int=number)) for number in range(NODE_LIMIT // 25)]
    with pytest.raises(RequestRejected, match=r"join names [\d,]+ promises, more than one message holds"):
        inside.join(wide)
    assert not len(attempt.runs[0])


# --- large values


def test_a_large_argument_goes_before_the_node_that_names_it(broker: RecordingBroker) -> None:
    instance = DAGInstance(UUID(bytes=INSTANCE), Sample())
    ballast = os.urandom(LARGE_FROM)
    instance.work(1, ballast)
    assert list(broker.requests[-1].nodes[0].large) == large_values(broker.only.arguments) == [sha256(ballast).digest()]
    assert decode_call(broker.only.opened, get_large=broker.large.__getitem__) == ((1, ballast), {})


def test_the_same_large_argument_is_named_once(attempt: AttemptScope, inside: Any) -> None:
    for _ in range(3):
        inside.work(1, bytes(LARGE_FROM))
    assert list(attempt.runs[0].to_message(FunctionTable()).large) == [b"h" * 32]


def test_an_argument_beyond_the_limit_leaves_no_node(broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "VALUE_LIMIT", LARGE_FROM - 1)
    with pytest.raises(RequestRejected, match="is more than dagorama carries"):
        Sample()(1, LARGE_FROM)
    assert not broker.requests


def test_an_argument_that_cannot_be_pickled_is_named(broker: RecordingBroker) -> None:
    instance = DAGInstance(UUID(bytes=INSTANCE), Sample())
    with pytest.raises(NotPicklable, match=r"argument 'number'.*lock"):
        instance.work({"deep": threading.Lock()})
    assert not broker.requests


# --- direct calls


def test_each_direct_call_is_one_submission(broker: RecordingBroker) -> None:
    instance = DAGInstance(UUID(bytes=INSTANCE), Sample())
    one = instance.work(1)
    instance.join(one)
    assert broker.submissions == 2
    assert broker.called("join")[0].sources == [one.node_id]
    assert [request.nodes[0].first for request in broker.requests] == [0, 1]


def test_two_holders_of_an_instance_never_make_the_same_id(broker: RecordingBroker) -> None:
    holders = [DAGInstance(UUID(bytes=INSTANCE), Sample()) for _ in range(2)]
    assert len({holder.work(1).node_id for holder in holders}) == 2


def test_a_forked_child_never_makes_the_same_id(broker: RecordingBroker) -> None:
    instance = DAGInstance(UUID(bytes=INSTANCE), Sample())
    instance.work(0)
    child = os.fork()
    if child == 0:
        try:
            instance.work(1)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    instance.work(2)
    assert len(broker.nodes) == 3


async def test_an_async_direct_call_leaves_the_loop_free(broker: RecordingBroker) -> None:
    class Later(Sample):
        @dagorama().asyncfn
        async def slow(self) -> threading.Thread:
            return threading.current_thread()

    asked: list[threading.Thread] = []
    instance = DAGInstance(UUID(bytes=INSTANCE), Later())
    put = connection_module.Connection.submit

    def submit(self: Any, requests: Any) -> None:
        asked.append(threading.current_thread())
        put(self, requests)

    connection_module.Connection.submit = submit  # type: ignore[method-assign]
    try:
        await instance.slow()
    finally:
        connection_module.Connection.submit = put  # type: ignore[method-assign]
    assert asked
    assert asked[0] is not threading.current_thread()


# --- inside an attempt


def test_an_attempt_without_calls_has_nothing_to_send(attempt: AttemptScope) -> None:
    assert attempt.origin is None
    assert attempt.runs == []


def test_an_attempt_that_is_over_takes_no_calls(attempt: AttemptScope, inside: Any) -> None:
    inside.work(1)
    attempt.close()
    with pytest.raises(NotInInstance, match=rf"work was called at {__file__}:\d+ after its node had ended"):
        inside.work(2)


def test_first_calls_from_many_threads_are_of_one_run(attempt: AttemptScope, inside: Any) -> None:
    together = threading.Barrier(8)

    def call(number: int) -> Any:
        together.wait()
        return inside.work(number)

    with ThreadPoolExecutor(8) as pool:
        promises = list(pool.map(call, range(8)))
    [run] = attempt.runs
    assert {promise.node_id for promise in promises} == {node.id for node in block_of(run)}
    assert len(run) == 8


def test_a_call_that_ends_after_its_run_is_refused_rather_than_lost(attempt: AttemptScope, inside: Any) -> None:
    class ClosesIt:
        def __reduce__(self) -> Any:
            attempt.close()  # as the node does that another thread calls for
            return str, ()

    inside.work(1)
    with pytest.raises(NotInInstance, match="while its node ended"):
        inside.work(ClosesIt())
    assert [len(run) for run in attempt.runs] == [1]


def test_a_fork_of_the_process_takes_no_calls(attempt: AttemptScope, inside: Any) -> None:
    attempt.abandon()
    with pytest.raises(NotInInstance, match="in a fork of the process that runs the node"):
        inside.work(1)


def test_a_promise_of_another_instance_is_refused(inside: Any) -> None:
    stranger = instance_within(b"s" * 16, Sample(), AttemptScope(b"s" * 16)).work(1)
    with pytest.raises(WrongInstance, match=rf"made at {__file__}:\d+"):
        inside.join({"deep": [stranger]})


def test_an_instance_made_inside_belongs_to_the_attempt(attempt: AttemptScope, inside: Any) -> None:
    token = current_attempt.set(attempt)
    try:
        inside.work(0)
        instance, promise = Sample()()
        later = instance.work(9)
    finally:
        current_attempt.reset(token)
    own, made = attempt.runs
    assert own.instance == INSTANCE
    assert made.creates is not None
    assert made.creates.entry == promise.node_id
    assert made.instance == instance.instance_id.bytes
    assert [node.id for node in block_of(made)][-1] == later.node_id
    assert attempt.made(promise.node_id)
    assert not attempt.made(bytes(16))
    attempt.close()
    with pytest.raises(NotInInstance):
        instance.work(1)


def test_an_instance_made_inside_whose_entry_point_raises_is_forgotten(attempt: AttemptScope) -> None:
    class Raises(Sample):
        def entrypoint(self, pieces: int = 2, size: int = 0) -> Any:
            self.work(1)
            raise ZeroDivisionError

    token = current_attempt.set(attempt)
    try:
        with pytest.raises(ZeroDivisionError):
            Raises()()
    finally:
        current_attempt.reset(token)
    assert attempt.runs == []


def test_a_definition_called_after_the_attempt_is_over_is_refused(attempt: AttemptScope) -> None:
    token = current_attempt.set(attempt)
    attempt.close()
    try:
        with pytest.raises(NotInInstance, match="after its node had ended"):
            Sample()()
    finally:
        current_attempt.reset(token)


def test_a_run_knows_its_size() -> None:
    assert len(NodeBatch(INSTANCE, b"o" * 12)) == 0
