"""Signing keys between whole programs: who holds them, who does not, and what a stranger can do. Cases 42 to 44."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

import dagorama_broker.launch
from dagorama import DAGInstance, NodeFailed, UnverifiedValue, dagorama, outcome, resolve
from dagorama.api import broker_pb2 as pb
from dagorama.calls.functions import from_wrapper
from dagorama.client.connection import connection
from dagorama.models.promise import DAGPromise, restore_promise
from dagorama.values.keys import new_key
from dagorama.values.signing import keyring
from dagorama_broker.launch import LaunchedBroker
from tests.support.bombs import Bomb
from tests.support.brokers import launch_broker
from tests.support.fan import Fan
from tests.support.worker_command import WAIT, await_that, unservable
from tests.support.workers import launch_workers

KEYS = "DAGORAMA_SIGNING_KEYS"


class Adding(Fan):
    @dagorama().syncfn
    def fail(self) -> int:
        raise ValueError("no luck")

    @dagorama().syncfn
    def told(self, found: object) -> str:
        return str(found)

    @dagorama().syncfn
    def held(self) -> list[str]:
        return [id.hex() for id in keyring().ids]

    @dagorama().syncfn
    def link(self, left: int) -> object:
        return self.link(left - 1) if left else "the end"


@pytest.fixture
def broker() -> Iterator[LaunchedBroker]:
    with launch_broker(port=0) as launched:
        yield launched


@contextmanager
def worker(keys: str) -> Iterator[None]:
    """The command, which holds these keys."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), KEYS: keys}
    process = subprocess.Popen([sys.executable, "-m", "dagorama.worker"], cwd="/", env=environment)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def shown(text: str) -> bool:
    return any(text in reason for reason in unservable())


def test_a_worker_without_the_key_is_offered_nothing_and_says_what_to_set(broker: LaunchedBroker) -> None:
    Adding()(3)
    id = keyring().signs_under.hex()
    with worker(new_key()):
        await_that(lambda: shown(f"it does not hold the signing key {id}: set {KEYS} there"))
        with launch_workers(1):
            instance, other = Adding()(4)
            assert resolve(instance, other, timeout=WAIT) == 6
    assert connection().get_status().nodes[pb.FAILED] == 0


def test_keys_are_exchanged_one_after_the_other(broker: LaunchedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = os.environ[KEYS], new_key()
    instance, promise = Adding()(3)
    with worker(f"{new},{old}"):
        # The worker signs under the new key what it was asked under the old one.
        with pytest.raises(UnverifiedValue, match=KEYS):
            resolve(instance, promise, timeout=WAIT)
        monkeypatch.setenv(KEYS, f"{old},{new}")
        assert resolve(instance, promise, timeout=WAIT) == 3
        monkeypatch.setenv(KEYS, new)
        assert resolve(*Adding()(4), timeout=WAIT) == 6
    monkeypatch.setenv(KEYS, new)
    with worker(new):
        assert resolve(*Adding()(5), timeout=WAIT) == 10


def test_a_value_under_a_key_that_a_worker_does_not_hold_gives_its_consumer_back(
    broker: LaunchedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = os.environ[KEYS], new_key()
    instance, _ = Adding()(0)
    with worker(f"{new},{old}"):
        first = instance.one(7)
        await_that(lambda: connection().get_status().nodes[pb.COMPLETED] >= 3)
    with worker(old):
        promise = instance.total([first])
        await_that(lambda: shown("it cannot check a signature: the signing key"))
        with worker(f"{old},{new}"):
            monkeypatch.setenv(KEYS, f"{old},{new}")
            assert resolve(instance, promise, timeout=WAIT) == 7


def test_launch_broker_and_its_workers_share_a_key_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEYS)
    with launch_broker(port=0), launch_workers(1):
        fresh = os.environ[KEYS]
        instance, _ = Adding()(1)
        assert resolve(instance, instance.held(), timeout=WAIT) == [keyring().signs_under.hex()]
    assert KEYS not in os.environ
    with launch_broker(port=0):
        assert os.environ[KEYS] != fresh


def test_the_users_own_key_outlives_the_block_if_there_is_a_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(KEYS)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    store = f"sqlite:///{tmp_path}/store.db"
    with launch_broker(port=0, store=store):
        instance, promise = Adding()(3)
        assert KEYS not in os.environ
    with launch_broker(port=0, store=store), launch_workers(1):
        assert resolve(instance, promise, timeout=WAIT) == 3


def test_a_broker_is_not_given_the_keys() -> None:
    with dagorama_broker.launch.launch_broker(port=0) as broker:
        environment = Path(f"/proc/{broker.pid}/environ").read_bytes()
    assert KEYS.encode() not in environment
    assert os.environ[KEYS].encode() not in environment


def test_an_exception_travels_signed_and_is_rebuilt(broker: LaunchedBroker) -> None:
    with launch_workers(1):
        instance, _ = Adding()(0)
        with pytest.raises(NodeFailed) as failure:
            resolve(instance, instance.fail(), timeout=WAIT)
        assert isinstance(failure.value.__cause__, ValueError)
        told = resolve(instance, instance.told(outcome(instance.fail())), timeout=WAIT)
        assert "no luck" in told


def test_a_promise_returned_through_a_thousand_nodes_arrives(broker: LaunchedBroker) -> None:
    with launch_workers(2):
        instance, _ = Adding()(0)
        promise = instance.link(1000)
        assert resolve(instance, promise, timeout=2 * WAIT) == "the end"
        assert resolve(instance, instance.told(promise), timeout=WAIT) == "the end"


# --- strangers: whoever reaches the port, with raw stubs and without a key -----------------------------------------


def submitted(key_id: bytes, envelope: bytes) -> tuple[DAGInstance, DAGPromise[object]]:
    """A node of our own code, as somebody else makes it."""
    function = from_wrapper(Adding.one).spec(Adding).to_message(key_id)
    instance, origin = os.urandom(16), os.urandom(12)
    nodes = pb.Nodes(
        instance=instance, creates=pb.NewInstance(definition="x:Y"), origin=origin, function=[0], arguments=[envelope]
    )
    connection().submit([pb.SubmitRequest(functions=[function], nodes=[nodes])])
    return DAGInstance(UUID(bytes=instance), Adding()), restore_promise(origin + bytes(4), instance, None, None)


def test_without_a_key_no_caller_can_make_a_worker_run_anything(broker: LaunchedBroker, tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "went off")
    with launch_workers(1):
        submitted(b"", bomb.envelope)
        await_that(lambda: shown("it cannot check a signature: the signature of the arguments is missing"))
        held = keyring().signs_under
        forged = b"\x01\x01" + held + os.urandom(48) + bomb.envelope[2:]
        instance, promise = submitted(held, forged)
        with pytest.raises(NodeFailed, match=r"TamperedValue.*was changed"):
            resolve(instance, promise, timeout=WAIT)
        instance, promise = submitted(held, bomb.envelope)
        with pytest.raises(NodeFailed, match=r"TamperedValue.*not signed with the key that its caller announced"):
            resolve(instance, promise, timeout=WAIT)
        # The worker goes on with what is signed, nodes of the same function among it.
        assert resolve(*Adding()(3), timeout=WAIT) == 3
    assert not bomb.went_off


def test_what_processes_log_and_raise_holds_no_key(
    broker: LaunchedBroker, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    marked, other = new_key(), new_key()
    monkeypatch.setenv("DAGORAMA_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv(KEYS, f"{marked},{other}")
    with launch_workers(1):
        instance, promise = Adding()(2)
        resolve(instance, promise, timeout=WAIT)
        with pytest.raises(NodeFailed) as failure:
            resolve(instance, instance.fail(), timeout=WAIT)
    monkeypatch.setenv(KEYS, new_key())
    with pytest.raises(UnverifiedValue) as refusal:
        resolve(instance, promise)
    told = [*capfd.readouterr(), str(failure.value), repr(failure.value.__cause__), str(refusal.value), *unservable()]
    for key in (marked, other):
        assert not [text for text in told if key in text]
