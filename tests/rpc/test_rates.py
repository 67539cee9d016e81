"""Rates and shared limits on the wire: what is stored of them, what is said, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.model.domain import Function, Rate, RetryPolicy, SharedLimit
from dagorama_broker.rpc.functions import function_message, function_of
from tests.support.raw import Dag, Served, refused, serving, submit

HOUR = 3_600.0


def shares(name: str, starts: int) -> pb.Function:
    limit = pb.SharedLimit(name="api", rate=pb.Rate(starts=starts, seconds=HOUR), max_concurrency=20)
    return pb.Function(name=f"work:Task.{name}", hash="h", limit=limit)


async def texts(served: Served, dag: Dag, counter: int) -> list[str]:
    request = pb.ExplainNodeRequest(instance=dag.instance, node=dag.id(counter))
    return [reason.text for reason in (await served.stub.ExplainNode(request)).reasons if reason.code == "rate"]


@pytest.mark.parametrize(
    "function",
    [
        Function("work:a", "h", "q", rate=Rate(10, 0.5), rate_by_key=True, max_concurrency=2, concurrency_of_all=True),
        Function("work:b", "h", "q", retry=RetryPolicy(3), rate=Rate(1, 60.0), max_concurrency=2),
        Function("work:c", "h", "q", limit=SharedLimit("api", Rate(500, 60.0), 20)),
        Function("work:d", "h", "q", limit=SharedLimit("api", None, 20)),
    ],
)
def test_a_function_is_read_as_it_was_written(function: Function) -> None:
    assert function_of(function_message(function)) == function


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"rate": pb.Rate(seconds=1)}, "a rate has at least one start"),
        ({"rate": pb.Rate(starts=1)}, "a rate has at least one start in more than 0"),
        ({"rate": pb.Rate(starts=1, seconds=float("inf"))}, "not 1 in inf"),
        ({"rate": pb.Rate(starts=1, seconds=float("nan"))}, "not 1 in nan"),
        ({"limit": pb.SharedLimit(max_concurrency=1)}, "the name of its limit has 0 characters"),
        ({"limit": pb.SharedLimit(name="api")}, "its limit 'api' has neither a rate nor a number of nodes"),
        ({"limit": pb.SharedLimit(name="api", rate=pb.Rate(starts=1))}, "limit 'api': a rate has at least one start"),
    ],
)
async def test_figures_that_cannot_be_are_refused(served: Served, columns: dict[str, pb.Rate], text: str) -> None:
    limited = pb.Function(name="work:Task.limited", hash="h", **columns)  # type: ignore[arg-type]  # its fields
    with refused(grpc.StatusCode.INVALID_ARGUMENT, text):
        await submit(served.stub, Dag().submission(b"a", functions=[limited]))


async def test_it_is_said_how_long_a_node_waits(served: Served) -> None:
    dag, rate = Dag(), pb.Rate(starts=2, seconds=HOUR)
    by_key = pb.Function(name="work:Task.by_key", hash="h", rate=rate, rate_by_key=True)
    await submit(served.stub, dag.submission(*[b"a"] * 4, functions=[by_key], keys=["x", "y"], key=[1, 1, 1, 2]))
    worker = await served.worker(slots=4)
    assert {node.id for node in await worker.nodes(3)} == {dag.id(0), dag.id(1), dag.id(3)}
    (text,) = await texts(served, dag, 2)
    assert text.startswith("the rate of 2 per 3600 s for the key 'x' is used up; its next start is in 3,600 s")


async def test_the_figures_that_come_last_hold_also_after_a_restart_and_it_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, dag = f"sqlite:///{tmp_path}/store", Dag()
    with caplog.at_level(logging.WARNING, "dagorama_broker"):
        async with serving(store=store) as served:
            await submit(served.stub, dag.submission(b"a", b"b", functions=[shares("one", 1)]))
            await submit(served.stub, Dag().submission(b"c", functions=[shares("two", 2)]))
    (warning,) = [record.getMessage() for record in caplog.records if "the limit" in record.getMessage()]
    assert warning == (
        "the limit 'api' allows 2 starts per 3600 s and 20 at once from now on, as work:Task.two declares;"
        " work:Task.one had declared 1 start per 3600 s and 20 at once: give it the same figures everywhere"
    )
    async with serving(store=store) as served:
        await served.worker()
        (text,) = await texts(served, dag, 0)
        assert text.startswith(
            "the rate of 2 per 3600 s of the limit 'api', as work:Task.two declares, is used up"
            " (the broker was started a short time ago, and does not know what was started before)"
        )
