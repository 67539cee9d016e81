"""What a worker presents is believed with a proof that it was granted to this very worker, and not without."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.proofs import MOST_PRESENTED, PresentedGrant, Proofs, check_secret, id_of
from dagorama_broker.errors import InvalidArgument, PermissionDenied
from dagorama_broker.store import Store
from tests.support.raw import Dag, Given, RawWorker, Served, envelope, granted, identity, serving, submit
from tests.support.records import begun

NOT_NOW, DENIED, INVALID = (
    grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT,
)  # fmt: skip


def held(*nodes: Given) -> dict[str, Any]:
    return {
        "held_node": [node.key for node in nodes], "held_attempt": [node.attempt for node in nodes],
        "held_slot": [0] * len(nodes),
    }  # fmt: skip


#: What a thief says who has heard everything but the worker's secret.
THEFTS: dict[str, Callable[[RawWorker], dict[str, Any]]] = {
    "nothing but the attempt": lambda owner: {},
    "the proof of another worker's grant": lambda owner: {"grants": owner.grants},
    "the worker's id": lambda owner: {"worker": owner.hello.worker, "secret": b""},
    "the worker's ID and its proofs": lambda owner: {
        "worker": owner.hello.worker, "secret": b"", "grants": owner.grants,
    },
    "a proof that is made up": lambda owner: {
        "grants": [pb.HeldGrant(node=owner.grants[0].node, attempt=owner.grants[0].attempt, proof=b"p" * 16)]
    },
    "no proof at all": lambda owner: {
        "grants": [pb.HeldGrant(node=owner.grants[0].node, attempt=owner.grants[0].attempt)]
    },
}  # fmt: skip


@pytest.mark.parametrize("theft", THEFTS)
async def test_an_attempt_is_not_believed_from_another_worker(served: Served, theft: str) -> None:
    dag, owner, node = await granted(served)
    # It tolerates nothing that would bring it the node by itself.
    thief = await served.worker(**THEFTS[theft](owner), **held(node), exclude_queues=[node.function.queue])
    await thief.until(lambda: thief.refused)
    await thief.complete(node, value=b"stolen")
    await owner.connect(**held(node))
    await owner.complete(node, value=b"its own")
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"its own")
    assert not owner.refused


@pytest.mark.parametrize("theft", THEFTS)
async def test_an_attempt_is_not_believed_from_another_worker_after_a_restart(tmp_path: Path, theft: str) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    async with serving(store=store) as served:
        dag, owner, node = await granted(served)
    async with serving(store=store, reconnect_wait=5.0) as served:
        thief = await served.worker(**THEFTS[theft](owner), **held(node), exclude_queues=[node.function.queue])
        await thief.until(lambda: thief.refused)
        await thief.complete(node, value=b"stolen")
        again = await served.worker(**owner.identity, **held(node))
        await again.complete(node, value=b"its own")
        assert await served.value(dag.instance, dag.id(0)) == envelope(b"its own")
        assert not again.refused


async def test_an_attempt_that_was_never_granted_is_not_believed_from_whom_the_node_was_granted_to(
    tmp_path: Path,
) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    async with serving(store=store) as served:
        dag, owner, node = await granted(served)
    async with serving(store=store, reconnect_wait=0.0) as served:
        made_up = node._replace(attempt=node.attempt + 77)
        again = await served.worker(**owner.identity, **held(made_up), exclude_queues=[node.function.queue])
        await again.until(lambda: again.refused)
        await again.complete(made_up)
        await (await served.worker()).node()
        assert await served.states(dag.instance, dag.id(0)) == [pb.CLAIMED]


async def test_a_proof_of_another_store_proves_nothing(served: Served) -> None:
    _, owner, node = await granted(served)
    async with serving() as other:
        dag = Dag()
        await submit(other.stub, dag.submission(b"a"))
        again = await other.worker(**owner.identity, **held(node), exclude_queues=[node.function.queue])
        await again.until(lambda: again.refused == [node.attempt])
        assert await other.states(dag.instance, dag.id(0)) == [pb.QUEUED]


async def test_the_id_of_a_connected_worker_does_not_end_its_session(served: Served) -> None:
    worker = await served.worker()
    thief = RawWorker(served.stub, worker=worker.hello.worker, secret=b"")
    served.workers.append(thief)
    await thief.connect()
    error = await thief.end()
    assert (error.code(), "send the secret that the ID is made of" in (error.details() or "")) == (NOT_NOW, True)
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    await worker.complete(await worker.node())
    await served.value(dag.instance, dag.id(0))


@pytest.mark.parametrize(("secret", "status", "text"), [
    (b"s" * 32, DENIED, "does not fit its secret"), (b"s", INVALID, "a worker's secret has 32 bytes, not 1"),
])  # fmt: skip
async def test_a_secret_that_does_not_fit_the_id_is_refused(
    served: Served, secret: bytes, status: grpc.StatusCode, text: str
) -> None:
    worker = await served.worker()
    thief = RawWorker(served.stub, worker=worker.hello.worker, secret=secret)
    served.workers.append(thief)
    await thief.connect()
    error = await thief.end()
    assert error.code() is status
    assert text in (error.details() or "")
    assert len(served.broker.sessions) == 1


async def test_a_worker_without_a_secret_works_and_is_lost_with_its_connection(served: Served) -> None:
    dag = Dag()
    await submit(served.stub, dag.submission(b"a"))
    plain = await served.worker(worker=os.urandom(16), secret=b"")
    node = await plain.node()
    await plain.vanish()
    await served.until(lambda broker: not broker.sessions)
    await plain.connect(**held(node))
    await plain.until(lambda: plain.refused == [node.attempt])
    await plain.complete(await plain.node(), value=b"another attempt")
    assert await served.value(dag.instance, dag.id(0)) == envelope(b"another attempt")


async def test_no_secret_is_in_the_status(served: Served) -> None:
    worker = await served.worker()
    status = await served.status()
    assert [each.worker for each in status.workers] == [worker.hello.worker]
    assert worker.hello.secret not in status.SerializeToString()
    assert served.broker.store.secret.hex() not in repr(served.broker.proofs) + repr(served.broker.store)


class TestProofs:
    PROOFS = Proofs(b"k" * 32)

    SECRET = b"s" * 32
    WORKER = id_of(SECRET)

    def grant(self, nodes: Sequence[int], attempts: Sequence[int]) -> PresentedGrant:
        return PresentedGrant(nodes, attempts, self.PROOFS.of(self.WORKER, nodes, attempts))

    def test_prove_the_pairs_of_each_grant(self) -> None:
        grants = [self.grant([1, 2], [11, 12]), self.grant([3], [13])]
        assert self.PROOFS.proven(self.WORKER, grants) == {(1, 11), (2, 12), (3, 13)}

    @pytest.mark.parametrize(("nodes", "attempts"), [
        ([2, 1], [11, 12]), ([1, 2], [12, 11]), ([1], [11]), ([1, 2, 3], [11, 12, 13]), ([1, 11], [2, 12]),
    ])  # fmt: skip
    def test_prove_no_other_pairs(self, nodes: list[int], attempts: list[int]) -> None:
        proof = self.grant([1, 2], [11, 12]).proof
        assert self.PROOFS.proven(self.WORKER, [PresentedGrant(nodes, attempts, proof)]) == set()

    def test_prove_nothing_to_another_worker(self) -> None:
        assert self.PROOFS.proven(identity()["worker"], [self.grant([1], [11])]) == set()

    def test_are_bounded(self) -> None:
        many = PresentedGrant(range(MOST_PRESENTED + 1), range(MOST_PRESENTED + 1), b"")
        with pytest.raises(InvalidArgument, match="131,073 attempts; 131,072 are allowed"):
            self.PROOFS.proven(self.WORKER, [many])
        with pytest.raises(InvalidArgument, match="different lengths"):
            self.PROOFS.proven(self.WORKER, [PresentedGrant([1], [1, 2], b"")])

    def test_secrets_fit_ids(self) -> None:
        check_secret(self.WORKER, self.SECRET)
        with pytest.raises(PermissionDenied):
            check_secret(os.urandom(16), self.SECRET)


def test_a_store_keeps_its_secret(store: Store) -> None:
    secret = store.secret
    assert len(secret) == 32
    store.close()
    begun(store)
    assert store.secret == secret
