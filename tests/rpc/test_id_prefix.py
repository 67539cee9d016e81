"""IDs by how they begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from tests.support.raw import Dag, Served, refused, serving, submit


def dag_of(instance: str, origin: str = "0000") -> Dag:
    """Its IDs begin with these digits."""
    dag = Dag()
    dag.instance = bytes.fromhex(instance.ljust(32, "7"))
    dag.origin = bytes.fromhex(origin.ljust(24, "7"))
    return dag


async def found(served: Served, instance: str, nodes: Sequence[str] = ()) -> tuple[bytes, list[bytes]]:
    reply = await served.stub.FindIds(pb.FindIdsRequest(instance=instance, node=nodes))
    return reply.instance, list(reply.node)


async def made(served: Served, *dags: Dag) -> None:
    for dag in dags:
        await submit(served.stub, dag.submission(b"a", b"b"))


async def test_an_instance_is_found_by_as_many_digits_as_tell_it_from_others() -> None:
    async with serving() as served:
        one, other = dag_of("abcd1"), dag_of("abcd2", "0001")
        await made(served, one, other)
        assert (await found(served, "abcd1"))[0] == one.instance
        assert (await found(served, "abcd27"))[0] == other.instance
        assert (await found(served, one.instance.hex()))[0] == one.instance
        with refused(grpc.StatusCode.FAILED_PRECONDITION, f"abcd; use a longer prefix: {UUID(bytes=one.instance)}, "):
            await found(served, "abcd")
        with refused(grpc.StatusCode.NOT_FOUND, "no instance has an ID that begins with abce"):
            await found(served, "abce")
        with refused(grpc.StatusCode.NOT_FOUND, "is not known to this broker"):
            await found(served, "7" * 32)


async def test_a_node_is_found_among_those_of_its_instance() -> None:
    async with serving() as served:
        one, other = dag_of("abcd1", "beef1"), dag_of("abcd2", "beef2")
        await made(served, one, other)
        last = one.id(1)
        assert await found(served, "abcd1", [last.hex(), last.hex()]) == (one.instance, [last, last])
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "several nodes have IDs that begin with beef; use a longer"):
            await found(served, "abcd1", ["beef"])
        with refused(grpc.StatusCode.NOT_FOUND, "no node has an ID that begins with beef2"):
            await found(served, "abcd1", ["beef2"])


@pytest.mark.parametrize("asked", [
    {"instance": ""}, {"instance": "abc"}, {"instance": "ABCD"}, {"instance": "abcg"}, {"instance": "a" * 33},
    {"instance": "abcd", "node": ["/"]}, {"instance": "abcd", "node": ["/0"]},
    {"instance": "abcd", "node": ["/1a"]},
    {"instance": "abcd", "node": ["/" + "9" * 19]},
    {"instance": "abcd", "node": ["xyzz"]}, {"instance": "abcd", "node": ["abcd"] * 101},
])  # fmt: skip
async def test_what_is_no_beginning_of_an_id_is_malformed(asked: dict[str, Any]) -> None:
    async with serving() as served:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, ""):
            await served.stub.FindIds(pb.FindIdsRequest(**asked))


async def test_a_node_is_found_by_its_ordinal_among_the_nodes_of_its_instance() -> None:
    async with serving() as served:
        one, other = dag_of("abcd1", "beef1"), dag_of("abcd2", "beef2")
        await made(served, one, other)
        await submit(served.stub, one.submission(b"c", first=2, creates=None))
        assert await found(served, "abcd1", ["/1", "/3"]) == (one.instance, [one.id(0), one.id(2)])
        assert await found(served, "abcd2", ["/2", other.id(0).hex()]) == (other.instance, [other.id(1), other.id(0)])
        with refused(grpc.StatusCode.NOT_FOUND, "there is no node /4: the instance has 3 nodes, and the first is /1"):
            await found(served, "abcd1", ["/4"])
        await submit(served.stub, dag_of("abcd3", "beef3").submission(b"a"))
        with refused(grpc.StatusCode.NOT_FOUND, "there is no node /2: the instance has 1 node, and the first is /1"):
            await found(served, "abcd3", ["/2"])


async def test_nodes_of_several_instances_are_named_by_their_ordinals() -> None:
    async with serving() as served:
        one, other = dag_of("abcd1", "beef1"), dag_of("abcd2", "beef2")
        await made(served, one, other)
        await submit(served.stub, one.submission(b"c", first=2, creates=None))
        request = pb.NameNodesRequest(node=[one.id(2), other.id(1), bytes(16)])
        named = {name.node: name for name in (await served.stub.NameNodes(request)).names}
        assert named == {
            one.id(2): pb.NodeName(node=one.id(2), instance=one.instance, ordinal=3),
            other.id(1): pb.NodeName(node=other.id(1), instance=other.instance, ordinal=2),
        }
        listed = await served.stub.ListNodes(pb.ListNodesRequest(instance=one.instance))
        assert [node.ordinal for node in listed.nodes] == [1, 2, 3]
        for asked in ([b"short"], [bytes(16)] * 1001):
            with refused(grpc.StatusCode.INVALID_ARGUMENT, ""):
                await served.stub.NameNodes(pb.NameNodesRequest(node=asked))
