"""Failure hooks over the wire: which ones the broker refuses, and that no client can add a node in place of one."""

from __future__ import annotations

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import FIRST_HOOK, LARGEST_HOOK
from tests.support.raw import FUNCTION, Dag, Served, refused, submit

INVALID = grpc.StatusCode.INVALID_ARGUMENT
SIGNED = b"\1\1" + b"signed".ljust(60)


def creates(dag: Dag, arguments: bytes = SIGNED, function: pb.Function = FUNCTION) -> pb.NewInstance:
    hook = pb.FailureHook(function=function, arguments=arguments)
    return pb.NewInstance(definition="work:Task", entry=dag.id(0), hook=hook)


@pytest.mark.parametrize(
    "arguments",
    [
        b"",
        b"\1\0unsigned",
        b"\1\3large",
        b"\1\5promises",
        b"\1\x21scheduled",
        b"\1\x41hook",
        b"\1\1" + b"x" * LARGEST_HOOK,
    ],
)
async def test_arguments_that_no_hook_has_are_refused(served: Served, arguments: bytes) -> None:
    dag = Dag()
    request = dag.submission(b"a", creates=creates(dag, arguments))
    with refused(INVALID, "failure hook"):
        await submit(served.stub, request)


async def test_an_invalid_function_is_refused(served: Served) -> None:
    dag = Dag()
    request = dag.submission(b"a", creates=creates(dag, function=pb.Function()))
    with refused(INVALID, "name of a function"):
        await submit(served.stub, request)


async def test_a_client_cannot_make_a_node_with_the_id_of_a_hook(served: Served) -> None:
    dag = Dag()
    request = dag.submission(b"a", creates=creates(dag))
    request.nodes[0].first = FIRST_HOOK
    with refused(INVALID, "failure hooks"):
        await submit(served.stub, request)
