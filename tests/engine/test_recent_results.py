"""Results just recorded are answered from memory: the same answers, within a bound, and none of what was removed."""

from __future__ import annotations

import grpc
import pytest

from dagorama_broker.engine import payload_cache
from tests.support.raw import Dag, RawWorker, Served, envelope, refused, serving, submit


async def completed(served: Served, worker: RawWorker, value: bytes = b"done") -> Dag:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    await worker.durable(await worker.complete(await worker.node(), value=value))
    return dag


async def test_a_wait_after_the_end_gets_the_value_without_a_query_to_the_store(served: Served) -> None:
    dag = await completed(served, await served.worker(), b"of a")
    served.broker.store.find = None  # type: ignore[method-assign, assignment]  # it would be an error to call it
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"of a")
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"of a"), "and for the next who asks"


async def test_it_is_asked_for_as_of_its_own_instance_only(served: Served) -> None:
    dag = await completed(served, await served.worker())
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "belongs to another instance"):
        await served.wait(bytes(16), dag.id(0))


async def test_what_does_not_fit_is_answered_from_the_store(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_cache, "MOST_RECENT", 2)
    worker = await served.worker()
    dags = [await completed(served, worker, b"of %d" % number) for number in range(4)]
    kept = served.broker.recent
    assert [kept.find(dag.id(0)) is not None for dag in dags] == [False, False, True, True]
    assert len(served.broker.payloads.values.kept) == 2, "what had to go is kept by nobody"
    for number, dag in enumerate(dags):
        assert await served.value(dag.instance, dag.id(0)) == envelope(b"of %d" % number)


async def test_a_value_that_is_not_small_is_left_to_the_store(served: Served) -> None:
    dag = await completed(served, await served.worker(), bytes(payload_cache.LARGEST_RECENT))
    assert served.broker.recent.find(dag.id(0)) is None
    assert not served.broker.payloads.values.kept


async def test_a_value_that_other_nodes_were_given_is_not_kept_for_this(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a", b"b", source_count=[0, 1], source=[0]))
    worker = await served.worker()
    await worker.complete(await worker.node())
    await worker.durable(await worker.complete(await worker.node()))
    assert served.broker.recent.find(dag.id(0)) is None
    assert served.broker.recent.find(dag.id(1)) is not None


async def test_what_is_removed_for_its_age_is_answered_no_more() -> None:
    async with serving(retention=0.0) as served:
        dag = await completed(served, await served.worker())
        await served.until(lambda broker: broker.recent.find(dag.id(0)) is None)
        with refused(grpc.StatusCode.NOT_FOUND, "removed after its retention"):
            await served.value(dag.instance, dag.id(0))
        assert not served.broker.payloads.values.kept
