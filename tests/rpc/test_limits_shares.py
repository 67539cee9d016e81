"""Open calls and turns are shared out: by the kind of call and by the caller, so that nobody gets everything."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import Role
from dagorama_broker.errors import Overloaded
from dagorama_broker.rpc import large_values
from dagorama_broker.rpc.limits import KEPT, CallLimiter, Kind, Turns, share
from dagorama_broker.rpc.permissions import CALLS, OURS, host_of, kind_of, sharer_of
from dagorama_broker.rpc.tokens import Token
from tests.support.raw import PATIENCE, Dag, Served, answers_of, refused, serving, submit

MANY = 40  #: open calls, of which two are kept for each kind


# --- counting -------------------------------------------------------------------------------------------


def taken(streams: CallLimiter, kind: Kind, whose: str) -> int:
    """How many calls of a kind one caller can open, and does."""
    count = 0
    while True:
        try:
            streams.enter(kind, whose)
        except Overloaded:
            return count
        count += 1


def test_one_caller_gets_three_quarters_of_what_is_shared_and_of_what_is_kept_for_a_kind() -> None:
    streams = CallLimiter(400)
    kept = 400 // KEPT
    shared = 400 - len(Kind) * kept
    assert taken(streams, Kind.WAIT, "one") == share(shared) + share(kept)
    assert taken(streams, Kind.WAIT, "other") == shared - share(shared) + kept - share(kept)


@pytest.mark.parametrize("kind", Kind)
def test_whatever_is_open_of_other_kinds_some_places_are_left_for_each(kind: Kind) -> None:
    streams = CallLimiter(400)
    for other in set(Kind) - {kind}:
        for caller in range(10):
            taken(streams, other, f"{caller}")
    assert taken(streams, kind, "a caller") == share(400 // KEPT)


def test_all_callers_together_open_as_many_as_are_allowed_and_no_more() -> None:
    streams = CallLimiter(100)
    assert sum(taken(streams, kind, f"{caller}") for kind in Kind for caller in range(10)) == 100
    with pytest.raises(Overloaded, match="100 calls are open, which is the limit of this broker"):
        streams.enter(Kind.WORK, "another")


def test_a_place_that_is_left_is_free_again() -> None:
    streams = CallLimiter(20)
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(streams.one(Kind.TALK, "one"))
            except Overloaded:
                break
        assert streams.open
    assert streams.open == 0
    assert taken(streams, Kind.TALK, "one") == share(14) + share(1)


async def test_one_caller_has_at_most_its_share_of_turns_at_once() -> None:
    turns, going = Turns(4), asyncio.Event()

    async def go(whose: str, begun: asyncio.Queue[str]) -> None:
        async with turns.one(whose):
            await begun.put(whose)
            await going.wait()

    begun: asyncio.Queue[str] = asyncio.Queue()
    work = [asyncio.create_task(go("one", begun)) for _ in range(5)]
    async with asyncio.timeout(PATIENCE):
        assert [await begun.get() for _ in range(3)] == ["one"] * 3
        work.append(asyncio.create_task(go("other", begun)))
        assert await begun.get() == "other"
        assert begun.empty()
        going.set()
        await asyncio.gather(*work)
    assert begun.qsize() == 2


# --- who and what ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("peer", "host"), [
    ("ipv4:10.0.0.7:51234", "ipv4:10.0.0.7"),
    ("ipv6:[2001:db8:1:2:3::4]:51234", "ipv6:20010db800010002"),
    ("ipv6:%5B2001:db8:1:2::9%5D:51234", "ipv6:20010db800010002"),
    ("ipv6:[::ffff:10.0.0.7]:51234", "ipv4:10.0.0.7"),
    ("ipv6:[fe80::1%eth0]:51234", "ipv6:fe80000000000000"),
    ("ipv6:nonsense", "ipv6:nonsense"),
])  # fmt: skip
def test_callers_without_tokens_are_told_apart_by_their_hosts(peer: str, host: str) -> None:
    assert host_of(peer) == host
    assert sharer_of(None, peer) == host


def test_a_token_has_one_share_wherever_it_is_used() -> None:
    token = Token("nightly", Role.CLIENT, bytes(32))
    assert sharer_of(token, "ipv4:10.0.0.7:1") == sharer_of(token, "ipv4:10.0.0.8:1") == "token:nightly"


def test_each_call_is_of_some_kind() -> None:
    kinds = {kind_of(method) for method in CALLS}
    assert kinds == set(Kind)
    assert kind_of(f"{OURS}Work") is kind_of("/main.Dagorama/GetWork") is Kind.WORK
    assert kind_of(f"{OURS}GetStatus") is Kind.LOOK


# --- over the wire --------------------------------------------------------------------------------------


async def others_are_served(served: Served) -> None:
    """A client submits, a person looks, a worker comes and runs something, a client talks."""
    dag, other = Dag(), Dag()
    await submit(served.stub, dag.submission(b"a"))
    await served.status()
    worker = await served.worker()
    await worker.durable(await worker.complete(await worker.node()))
    talk = served.stub.Exchange()
    await talk.write(pb.Requests(request=[pb.Request(number=1, submit=other.submission(b"b"))]))
    (answer,) = await answers_of(talk)
    assert answer.done
    assert not answer.HasField("refusal")
    talk.cancel()


async def test_a_caller_with_all_its_waits_open_leaves_the_rest_to_others() -> None:
    dag = Dag()
    async with serving(max_streams=MANY) as served:
        await submit(served.stub, dag.submission(b"x", functions=[pb.Function(name="work:nobody", taint="GPU")]))
        (key,) = served.broker.scheduler.graph.nodes
        waits = [served.stub.Wait(pb.WaitRequest(instance=dag.instance, node=[dag.id(0)])) for _ in range(MANY)]

        def are_open() -> int:
            return len(served.broker.watching._listeners(key))

        await served.until(lambda _: are_open() + sum(wait.done() for wait in waits) == MANY)
        assert 0 < are_open() < MANY
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "reserved for other callers or for other kinds of calls"):
            await served.wait(dag.instance, dag.id(0), dag.id(0))
        await others_are_served(served)
        for wait in waits:
            wait.cancel()
        await served.until(lambda _: not are_open())
        assert await served.states(dag.instance, dag.id(0)) == [pb.QUEUED]


async def test_asks_that_wait_on_one_stream_leave_the_rest_to_others() -> None:
    dag = Dag()
    async with serving(max_streams=MANY) as served:
        await submit(served.stub, dag.submission(b"x", functions=[pb.Function(name="work:nobody", taint="GPU")]))
        talk = served.stub.Exchange()
        wait = pb.WaitRequest(instance=dag.instance, node=[dag.id(0)])
        await talk.write(pb.Requests(request=[pb.Request(number=number, wait=wait) for number in range(MANY)]))
        answers = await answers_of(talk)
        assert {answer.refusal.status for answer in answers} == {grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]}
        await others_are_served(served)
        talk.cancel()


@pytest.mark.slow
async def test_a_client_that_does_not_read_a_large_value_loses_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SIDE_BY_SIDE", 1), ("LEAST", 1), ("READING", 0.2)):
        monkeypatch.setattr(large_values, name, value)
    async with serving() as served:
        chunks = [pb.ValueChunk(data=bytes(1 << 20))] * 48
        kept = await served.stub.PutValue(iter(chunks))
        small = await served.stub.PutValue(iter([pb.ValueChunk(data=b"small")]))
        slow = served.stub.GetValue(pb.GetValueRequest(sha256=kept.sha256))
        await slow.read()
        quick = served.stub.GetValue(pb.GetValueRequest(sha256=small.sha256), timeout=PATIENCE)
        assert [chunk.data async for chunk in quick] == [b"small"]
