"""Rebinding over the wire: what status says, what is answered, what a worker gets then, what a restart finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.settings import Settings
from tests.support.raw import FUNCTION, KEY, LEAF, Dag, RawWorker, Served, envelope, refused, serving, signed, submit

NAME, OLD, NEW = FUNCTION.name, FUNCTION.hash, "hash-new"


async def other_code(served: Served, hash: str = NEW, **hello: Any) -> RawWorker:
    """A worker that has other code, and has said so of the first node it got."""
    worker = await served.worker(key_ids=[KEY], **hello)
    node = await worker.node()
    await worker.say(returns=[pb.Return(
        node=[node.key], attempt=[node.attempt], reason=pb.CODE_MISMATCH, detail="it was changed", hash=hash,
    )])  # fmt: skip
    await served.until(lambda broker: any(w.refuses for w in broker.scheduler.claims.workers.values()))
    return worker


def asked(hash: str = "", made_with: tuple[str, ...] = (), **more: Any) -> pb.RebindRequest:
    return pb.RebindRequest(function=NAME, hash=hash, from_hash=made_with, **more)


async def look(served: Served, hash: str = "", made_with: tuple[str, ...] = (), **more: Any) -> pb.RebindReply:
    return await served.stub.Rebind(asked(hash, made_with, look=True, **more))


async def rebind(served: Served, hash: str = "", made_with: tuple[str, ...] = (), key: bytes = KEY) -> tuple[int, str]:
    """As the command does: it looks, and sends what is signed of that."""
    found = await look(served, hash, made_with)
    rebinding = signed(NAME, *found.made_with, hash=found.hash, key=key)
    reply = await served.stub.Rebind(asked(found.hash, made_with, rebinding=rebinding))
    assert (reply.rebound, reply.hash, reply.made_with) == (found.rebound, found.hash, found.made_with)
    return reply.rebound, reply.hash


def grant_of(worker: RawWorker) -> pb.GrantBody:
    """What the worker was sent last."""
    (grant,) = worker.messages[-1].grants
    return pb.GrantBody.FromString(grant.body)


async def test_status_says_what_code_there_is_instead_and_it_can_be_had_to_run_them() -> None:
    async with serving() as served:
        dag = Dag()
        await submit(served.stub, dag.submission(b"a", b"b", source_count=[0, 1], source=[0]))
        worker = await other_code(served)
        (unservable,) = (await served.status()).unschedulable
        assert (unservable.function.hash, list(unservable.deployed)) == (OLD, [NEW])
        assert await rebind(served) == (2, NEW)
        node = await worker.node()
        assert (node.function.name, node.function.hash) == (NAME, NEW)
        assert list(grant_of(worker).made_with) == [OLD]
        await worker.complete(node)
        await worker.complete(await worker.node())
        assert await served.value(dag.instance, dag.id(1)) == envelope(b"done")
        assert not (await served.status()).unschedulable


async def test_nodes_of_the_new_code_beside_them_have_no_other_code_that_they_were_made_with() -> None:
    async with serving() as served:
        dag = Dag()
        new = pb.Function(name=NAME, hash=NEW, is_async=True)
        old = pb.Function(name=NAME, hash=OLD, is_async=True)
        await submit(served.stub, dag.submission(b"a", b"b", b"c", function=[1, 0, 1], functions=[old, new]))
        assert await rebind(served, NEW, (OLD,)) == (1, NEW)
        worker = await served.worker(key_ids=[KEY])
        assert [node.arguments[2:] for node in await worker.nodes(3)] == [b"a", b"b", b"c"]
        assert list(grant_of(worker).made_with) == ["", OLD, ""]


async def test_a_rebinding_outlives_a_restart(tmp_path: Path) -> None:
    settings = Settings(port=0, store=f"sqlite:///{tmp_path}/broker.sqlite3", reconnect_wait=0.2)
    async with serving(settings) as served:
        await submit(served.stub, Dag().submission(b"a"))
        assert await rebind(served, NEW, (OLD,)) == (1, NEW)
    async with serving(settings) as served:
        worker = await served.worker(key_ids=[KEY])
        node = await worker.node()
        assert (node.function.hash, node.made_with) == (NEW, OLD)
        assert node.rebinding == signed(NAME, OLD, hash=NEW)


async def test_rebinding_is_refused_if_workers_have_different_code_and_both_are_named() -> None:
    async with serving() as served:
        await submit(served.stub, Dag().submission(b"a"))
        await other_code(served, "hash-1a")
        await other_code(served, "hash-1b")
        await served.until(lambda broker: len(broker.scheduler.claims.unschedulable()) == 1)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "name one of hash-1a, hash-1b"):
            await rebind(served)
        assert await rebind(served, "hash-1b") == (1, "hash-1b")


@pytest.mark.parametrize(
    ("function", "status"),
    [("", grpc.StatusCode.INVALID_ARGUMENT), ("work:Task.unknown", grpc.StatusCode.NOT_FOUND)],
)
async def test_rebinding_in_an_unknown_instance_is_refused(function: str, status: grpc.StatusCode) -> None:
    async with serving() as served:
        with refused(status):
            await served.stub.Rebind(pb.RebindRequest(function=function))


# --- what is signed ---------------------------------------------------------------------------------------


async def test_a_look_tells_what_would_be_rebound_and_changes_nothing() -> None:
    async with serving() as served:
        first, second = Dag(), Dag()
        functions = [FUNCTION, pb.Function(name=NAME, hash=OLD, class_code="entrypoint=hash-1"), LEAF]
        await submit(served.stub, first.submission(b"a", b"b", b"c", function=[0, 1, 2], functions=functions))
        await submit(served.stub, second.submission(b"a"))
        found = await look(served, NEW, (OLD,))
        assert (found.rebound, found.hash, list(found.made_with)) == (3, NEW, [OLD, f"{OLD} entrypoint=hash-1"])
        found = await look(served, NEW, (OLD,), instance=second.instance)
        assert (found.rebound, list(found.made_with)) == (1, [OLD])
        worker = await served.worker(slots=4)
        assert {node.made_with for node in await worker.nodes(4)} == {""}


async def test_more_code_than_is_signed_in_one_go_is_refused_with_what_to_do() -> None:
    async with serving() as served:
        dag = Dag()
        functions = [pb.Function(name=NAME, hash=f"h{n}", class_code=f"{n}" * (60 << 10)) for n in range(4)]
        await submit(served.stub, dag.submission(*[b"a"] * 4, function=list(range(4)), functions=functions))
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "rebind fewer at a time (`dagorama rebind --from-hash`"):
            await look(served, NEW, ("h0", "h1", "h2", "h3"))
        assert await rebind(served, NEW, ("h0", "h1", "h2")) == (3, NEW)
        node = await (await served.worker(key_ids=[KEY])).node()
        assert node.made_with == f"h0 {'0' * (60 << 10)}"


async def test_each_rebinding_goes_once_with_the_nodes_that_it_is_for() -> None:
    async with serving() as served:
        is_async = pb.Function(name=NAME, hash=OLD, is_async=True)
        first, second = Dag(), Dag()
        for dag in (first, second):
            await submit(served.stub, dag.submission(b"a", b"b", functions=[is_async]))
        rebindings = [signed(NAME, OLD, hash=NEW, instance=dag.instance) for dag in (first, second)]
        for dag, rebinding in zip((first, second), rebindings, strict=True):
            await served.stub.Rebind(asked(NEW, (OLD,), instance=dag.instance, rebinding=rebinding))
        worker = await served.worker(key_ids=[KEY])
        nodes = await worker.nodes(4)
        assert [node.rebinding for node in nodes] == [rebindings[0], rebindings[0], rebindings[1], rebindings[1]]
        assert list(grant_of(worker).rebindings) == rebindings


async def test_the_latest_of_two_rebinds_goes_with_a_node_and_the_code_it_was_made_with_stays(tmp_path: Path) -> None:
    settings = Settings(port=0, store=f"sqlite:///{tmp_path}/broker.sqlite3", reconnect_wait=0.2)
    async with serving(settings) as served:
        await submit(served.stub, Dag().submission(b"a"))
        assert await rebind(served, NEW, (OLD,)) == (1, NEW)
        assert list((await look(served, "hash-newer", (NEW,))).made_with) == [OLD]
        assert await rebind(served, "hash-newer", (NEW,)) == (1, "hash-newer")
    async with serving(settings) as served:
        node = await (await served.worker(key_ids=[KEY])).node()
        assert (node.function.hash, node.made_with) == ("hash-newer", OLD)
        assert node.rebinding == signed(NAME, OLD, hash="hash-newer")


@pytest.mark.parametrize(
    ("rebinding", "text"),
    [
        (None, "needs a signature that allows it: sign it with `dagorama rebind`"),
        (signed(NAME, OLD, hash="another"), "sign it again"),
        (signed(NAME, "another", hash=NEW), "sign it again"),
        (signed(LEAF.name, OLD, hash=NEW), "sign it again"),
        (signed(NAME, OLD), "sign it again"),
        (signed(NAME, OLD, hash=NEW, instance=bytes(16)), "sign it again"),
    ],
    ids=["unsigned", "other code", "of other code", "another function", "what is deployed", "one instance"],
)
async def test_what_is_not_signed_for_is_refused_and_nothing_has_changed(
    rebinding: pb.SignedRebinding | None, text: str
) -> None:
    async with serving() as served:
        await submit(served.stub, Dag().submission(b"a"))
        with refused(grpc.StatusCode.FAILED_PRECONDITION, text):
            await served.stub.Rebind(asked(NEW, (OLD,), rebinding=rebinding))
        worker = await served.worker(key_ids=[KEY])
        assert (await worker.node()).function.hash == OLD


def unreadable() -> list[pb.SignedRebinding]:
    good = pb.Rebinding.FromString(signed(NAME, OLD, hash=NEW).rebinding)
    changes: list[dict[str, Any]] = [
        {"version": 2}, {"function": ""}, {"hash": ""}, {"deployed": True}, {"instance": b"short"}, {"made_with": [""]},
    ]  # fmt: skip
    content = good.SerializeToString()
    messages = [pb.SignedRebinding(rebinding=each, key_id=KEY, mac=b"m") for each in (b"", b"\xff", content[:-1])]
    messages += [pb.SignedRebinding(rebinding=content, mac=b"m"), pb.SignedRebinding(rebinding=content, key_id=KEY)]
    messages += [signed(NAME, "x" * (256 << 10), hash=NEW)]
    for change in changes:
        bad = pb.Rebinding()
        bad.CopyFrom(good)
        for name, value in change.items():
            bad.ClearField(name)  # type: ignore[arg-type]  # any of its fields
            bad.MergeFrom(pb.Rebinding(**{name: value}))
        messages.append(pb.SignedRebinding(rebinding=bad.SerializeToString(), key_id=KEY, mac=b"m"))
    return messages


async def test_what_is_no_signed_rebinding_is_refused() -> None:
    async with serving() as served:
        dag = Dag()
        await submit(served.stub, dag.submission(b"a"))
        for rebinding in unreadable():
            with refused(grpc.StatusCode.INVALID_ARGUMENT):
                await served.stub.Rebind(asked(NEW, (OLD,), rebinding=rebinding))
            with refused(grpc.StatusCode.INVALID_ARGUMENT):
                await served.stub.Retry(pb.RetryRequest(instance=dag.instance, new_code=True, rebindings=[rebinding]))


async def test_nodes_whose_rebinding_is_under_a_key_that_no_worker_holds_say_so_and_are_rebound_again() -> None:
    async with serving() as served:
        await submit(served.stub, Dag().submission(b"a"))
        worker = await served.worker(key_ids=[KEY])
        node = await worker.node()
        await worker.say(returns=[pb.Return(
            node=[node.key], attempt=[node.attempt], reason=pb.CODE_MISMATCH, hash=NEW
        )])  # fmt: skip
        await served.until(lambda broker: bool(broker.scheduler.claims.unschedulable()))
        gone = b"\x0e" * 8
        reply = await served.stub.Rebind(asked(NEW, (OLD,), rebinding=signed(NAME, OLD, hash=NEW, key=gone)))
        (unservable,) = reply.unschedulable
        assert (reply.rebound, unservable.queued) == (1, 1)
        assert (
            f"it does not hold the signing key {gone.hex()} under which its rebinding was signed" in unservable.reason
        )
        assert [found.reason for found in (await served.status()).unschedulable] == [unservable.reason]
        assert await rebind(served, NEW) == (1, NEW)
        node = await worker.node()
        assert node.rebinding == signed(NAME, OLD, hash=NEW)


async def test_what_has_been_rebound_is_signed_again_if_its_code_is_named() -> None:
    async with serving() as served:
        await submit(served.stub, Dag().submission(b"a"))
        assert await rebind(served, NEW, (OLD,), key=b"\x0e" * 8) == (1, NEW)
        assert await rebind(served, NEW, (NEW,)) == (1, NEW)
        node = await (await served.worker(key_ids=[KEY])).node()
        assert node.rebinding == signed(NAME, OLD, hash=NEW)
