"""A broker that lies to a client: what it serves is checked before anything is unpickled."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from dagorama.api import broker_pb2
from dagorama.client.completed import as_completed
from dagorama.client.results import aresolve
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, DAGInstance, resolve
from dagorama.errors import NodeFailed, TamperedValue, UnverifiedValue, ValueNotReadable
from dagorama.models.failure import Failure
from dagorama.models.outcome import outcome
from dagorama.models.promise import DAGPromise
from dagorama.values.codec import encode
from dagorama.values.keys import SigningKey, new_key
from dagorama.values.signing import FAILURE, RESULT, Keyring, keyring
from tests.support.bombs import Bomb, changed
from tests.support.recording_broker import Node, RecordingBroker


class Sample(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, value: Any) -> Any:
        return value

    @dagorama().syncfn
    def both(self, value: Any) -> Any:
        return [self.entrypoint(value), self.entrypoint("other")]

    @dagorama().syncfn
    def link(self, left: int) -> Any:
        return self.link(left - 1) if left else "the end"


@pytest.fixture
def bomb(tmp_path: Path) -> Bomb:
    return Bomb(tmp_path / "went off")


def two(broker: RecordingBroker) -> tuple[DAGInstance, list[DAGPromise[Any]], list[Node]]:
    """Nodes of one instance that have completed."""
    instance, first = Sample()("first")
    promises: list[Any] = [first, instance.entrypoint("second")]
    broker.run()
    return instance, promises, [broker.nodes[promise.node_id] for promise in promises]


def test_the_values_of_two_nodes_cannot_be_exchanged(broker: RecordingBroker) -> None:
    instance, promises, nodes = two(broker)
    nodes[0].value, nodes[1].value = nodes[1].value, nodes[0].value
    for promise, node in zip(promises, nodes, strict=True):
        with pytest.raises(TamperedValue, match=node.id.hex()):
            resolve(instance, promise)


async def test_exchanged_values_are_refused_in_waits_too(broker: RecordingBroker) -> None:
    instance, promises, nodes = two(broker)
    nodes[0].value = nodes[1].value
    with pytest.raises(TamperedValue):
        await aresolve(instance, promises[0])
    for promise in as_completed(instance, promises[:1]):
        with pytest.raises(TamperedValue):
            resolve(instance, promise)


def test_the_value_of_a_node_of_another_instance_is_refused(broker: RecordingBroker) -> None:
    instance, promises, nodes = two(broker)
    _, _, others = two(broker)
    nodes[0].value = others[0].value
    with pytest.raises(TamperedValue):
        resolve(instance, promises[0])


def test_a_node_of_another_instance_cannot_be_passed_off_as_the_entry_point(broker: RecordingBroker) -> None:
    """attach() has only the broker's word for which node that is; of the instance itself it must be."""
    instance, _, _ = two(broker)
    _, (other, _), _ = two(broker)
    broker.instances[instance.instance_id.bytes].entry = other.node_id
    attached, promise = Sample.attach(instance.instance_id)
    with pytest.raises(TamperedValue, match="another instance"):
        resolve(attached, promise)


def test_no_byte_of_a_value_can_be_changed(broker: RecordingBroker, bomb: Bomb) -> None:
    instance, promises, nodes = two(broker)
    nodes[0].returned(bomb.envelope)
    assert nodes[0].value is not None
    for bad in list(changed(nodes[0].value))[::7]:
        nodes[0].value = bad
        with pytest.raises((TamperedValue, UnverifiedValue, ValueNotReadable)):
            resolve(instance, promises[0])
    assert not bomb.went_off


@pytest.mark.parametrize("sign", [None, Keyring([SigningKey(b"s" * 32)])], ids=["unsigned", "under another key"])
def test_what_cannot_be_checked_is_refused_with_what_to_set(
    broker: RecordingBroker, bomb: Bomb, sign: Keyring | None
) -> None:
    instance, promises, nodes = two(broker)
    node = nodes[0]
    node.value = sign.sign(bomb.envelope, RESULT, node.instance, node.id) if sign else bomb.envelope
    with pytest.raises(UnverifiedValue, match="DAGORAMA_SIGNING_KEYS"):
        resolve(instance, promises[0])
    assert not bomb.went_off


def test_a_client_with_another_key_is_told_so(broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    instance, promises, _ = two(broker)
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", new_key())
    with pytest.raises(UnverifiedValue, match="DAGORAMA_SIGNING_KEYS"):
        resolve(instance, promises[0])


def test_a_client_that_has_a_new_key_first_still_reads_what_the_old_one_signed(
    broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, promises, _ = two(broker)
    old = keyring().signs_under
    (node,) = (node for node in broker.nodes.values() if node.id == promises[0].node_id)
    assert node.function.key_id == old
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", f"{new_key()},{os.environ['DAGORAMA_SIGNING_KEYS']}")
    assert resolve(instance, promises[0]) == "first"
    _, promise = Sample()(1)
    assert broker.nodes[promise.node_id].function.key_id == keyring().signs_under != old


# --- values that name others --------------------------------------------------------------------------------


def test_what_a_value_names_cannot_be_exchanged_or_reordered(broker: RecordingBroker) -> None:
    instance, _ = Sample()(0)
    promise = instance.both("one")
    broker.run()
    assert resolve(instance, promise) == ["one", "other"]
    inner = [node for node in broker.called("entrypoint") if node.value][-2:]
    inner[0].value, inner[1].value = inner[1].value, inner[0].value
    with pytest.raises(TamperedValue, match="|".join(node.id.hex() for node in inner)):
        resolve(instance, promise)


def test_a_promise_that_went_through_a_thousand_nodes_is_checked_link_by_link(broker: RecordingBroker) -> None:
    instance, _ = Sample()(0)
    promise = instance.link(1000)
    broker.run()
    assert resolve(instance, promise) == "the end"
    links = broker.called("link")
    links[400].value = links[401].value
    with pytest.raises(TamperedValue, match=links[400].id.hex()):
        resolve(instance, promise)


def test_a_large_value_cannot_be_replaced(broker: RecordingBroker, bomb: Bomb) -> None:
    instance, promises, nodes = two(broker)
    nodes[0].returned(encode(["y" * 5000], large_from=1000, put_large=broker._keep).envelope)
    assert resolve(instance, promises[0]) == ["y" * 5000]
    (digest,) = broker.large
    broker.large[digest] = pickle.dumps(bomb)
    with pytest.raises(ValueNotReadable, match="other bytes were received"):
        resolve(instance, promises[0])
    assert not bomb.went_off


# --- failures ------------------------------------------------------------------------------------------------


def failed(broker: RecordingBroker, node: Node, exception: bytes) -> None:
    node.state = broker_pb2.FAILED
    node.failure = broker_pb2.NodeFailure(
        node=node.id, function=node.function.name, type="x.Y", message="no", exception=exception
    )


@pytest.mark.parametrize("how", ["of another node", "a result", "unsigned", "under another key", "changed"])
def test_an_exception_is_rebuilt_only_where_it_was_signed_as_that_of_its_node(
    broker: RecordingBroker, bomb: Bomb, how: str
) -> None:
    instance, promises, nodes = two(broker)
    node, other = nodes
    pickled, plain = pickle.dumps(bomb), b"\x01\x00" + pickle.dumps(bomb)
    exceptions = {
        "of another node": other.signed_failure(pickled),
        "a result": keyring().sign(plain, RESULT, node.instance, node.id),
        "unsigned": plain,
        "under another key": Keyring([SigningKey(b"s" * 32)]).sign(plain, FAILURE, node.instance, node.id),
        "changed": node.signed_failure(pickled)[:-1] + b"x",
    }
    failed(broker, node, exceptions[how])
    with pytest.raises(NodeFailed, match=r"x\.Y: no") as failure:
        resolve(instance, promises[0])
    expected = UnverifiedValue if how in ("unsigned", "under another key") else TamperedValue
    assert isinstance(failure.value.__cause__, expected)
    assert not bomb.went_off


def test_a_failure_for_a_value_holds_texts_and_unpickles_nothing(broker: RecordingBroker, bomb: Bomb) -> None:
    instance, promises, nodes = two(broker)
    failed(broker, nodes[0], nodes[0].signed_failure(pickle.dumps(bomb)))
    assert isinstance(resolve(instance, outcome(promises[0])), Failure)
    assert not bomb.went_off


def test_a_run_that_was_stopped_at_its_timeout_has_an_unsigned_cause(broker: RecordingBroker) -> None:
    instance, promises, nodes = two(broker)
    failed(broker, nodes[0], b"")
    assert nodes[0].failure is not None
    nodes[0].failure.type = "builtins.TimeoutError"
    with pytest.raises(NodeFailed) as failure:
        resolve(instance, promises[0])
    assert isinstance(failure.value.__cause__, TimeoutError)
    assert str(failure.value.__cause__) == "no"
