"""What a child checks of what it is granted, whatever the broker says; and what becomes of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic_ns

import pytest
from scripted_broker import ScriptedBroker, worker_process
from worker_grants import INSTANCE, Wanted, body_of, call, encoded, ids, values_of

from dagorama.api import broker_pb2 as pb
from dagorama.keys import SigningKey, new_key
from dagorama.models.outcome import outcome as tolerated
from dagorama.models.promise import DAGPromise
from dagorama.signing import ARGUMENTS, RESULT, Keyring, code_text, function_digest, keyring
from dagorama.values import Encoded, encode, encode_call
from dagorama.worker.executor import Executor
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.large import SpoolValues
from dagorama.worker.outbox import Outbox
from tests.bombs import Bomb, changed

TAMPERED = "dagorama.errors.TamperedValue"
STRANGER = Keyring([SigningKey(b"s" * 32)])


def promise(counter: int) -> DAGPromise[object]:
    return DAGPromise._made(b"o" * 12, counter, INSTANCE, "f", (), {}, ("file", 1))


class Ran:
    """An executor, and what became of the nodes of one body."""

    def __init__(self, folder: Path, body: pb.GrantBody) -> None:
        outcomes: list[tuple[Kind, Outcome]] = []
        executor = Executor(Outbox(lambda kind, outcome: outcomes.append((kind, outcome))), SpoolValues(folder))
        for each in executor.prepare(body.SerializeToString()):
            executor.run(each, monotonic_ns())
        executor.outbox.flush()
        self.results, self.returned = pb.Results(), pb.Return()
        for kind, outcome in outcomes:
            (self.results if kind == Kind.RESULTS else self.returned).MergeFromString(outcome.body)

    @property
    def values(self) -> list[object]:
        assert not self.results.failures, self.results.failures
        return values_of(self.results)

    @property
    def failure(self) -> pb.Failure:
        assert not self.results.node
        assert not self.returned.node
        [failure] = self.results.failures
        return failure


class Granting:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bomb = Bomb(folder / "went off")

    def ran(self, body: pb.GrantBody) -> Ran:
        return Ran(self._folder / "spool", body)

    def is_tampered(self, body: pb.GrantBody) -> None:
        failure = self.ran(body).failure
        assert (failure.type, failure.final) == (TAMPERED, True)
        assert not self.bomb.went_off

    def is_given_back(self, body: pb.GrantBody, why: str) -> None:
        ran = self.ran(body)
        assert not ran.results.ByteSize()
        assert (list(ran.returned.node), ran.returned.reason) == (list(body.node), pb.UNCHECKABLE)
        assert why in ran.returned.detail
        assert "set DAGORAMA_SIGNING_KEYS" in ran.returned.detail
        assert not self.bomb.went_off


@pytest.fixture
def granting(tmp_path: Path) -> Granting:
    return Granting(tmp_path)


def arguments(body: pb.GrantBody, *args: object, ring: Keyring | None = None, **place: bytes) -> bytes:
    """Arguments for the one node of a body, or for another place."""
    right = {"instance": INSTANCE, "node": body.id[0]}
    function = function_digest(body.functions[0].name, code_text(body.functions[0].hash, body.functions[0].class_code))
    signed = {"role": ARGUMENTS, "function": function, **right, **place}
    return (ring or keyring()).sign(encode_call(args, {}).envelope, **signed)


def one(granting: Granting) -> pb.GrantBody:
    return body_of([call("echo", granting.bomb)])


# --- arguments ------------------------------------------------------------------------------------------------


def test_what_is_in_its_place_runs(granting: Granting) -> None:
    body = body_of([call("echo", 1)])
    body.arguments[0] = arguments(body, 2)
    assert granting.ran(body).values == [2]


@pytest.mark.parametrize(
    "place",
    [
        pytest.param({"instance": b"other instance's"}, id="instance"),
        pytest.param({"node": b"id of other node"}, id="node"),
        pytest.param({"role": RESULT}, id="role"),
        pytest.param({"role": RESULT, "function": b""}, id="a result"),
        pytest.param({"function": function_digest("worker_nodes:Nodes.append", "hash")}, id="function"),
        pytest.param({"function": function_digest("worker_nodes:Nodes.echo", "hash")}, id="hash"),
    ],
)
def test_arguments_of_another_place_fail_the_node_for_good(granting: Granting, place: dict[str, bytes]) -> None:
    body = one(granting)
    body.arguments[0] = arguments(body, granting.bomb, **place)
    granting.is_tampered(body)


def test_the_arguments_of_two_nodes_cannot_be_exchanged(granting: Granting) -> None:
    body = body_of([call("echo", granting.bomb), call("echo", granting.bomb)])
    body.arguments[0], body.arguments[1] = body.arguments[1], body.arguments[0]
    ran = granting.ran(body)
    assert [failure.type for failure in ran.results.failures] == [TAMPERED] * 2
    assert not granting.bomb.went_off


def test_a_node_cannot_be_said_to_be_another_or_of_another_instance(granting: Granting) -> None:
    body = one(granting)
    body.id[0] = b"id of other node"
    granting.is_tampered(body)
    body = one(granting)
    body.instances[0] = b"other instance's"
    granting.is_tampered(body)


def test_ids_that_only_add_up_are_refused(granting: Granting) -> None:
    body = one(granting)
    body.arguments[0] = arguments(body, granting.bomb, node=body.id[0][:-1], function=b"x" * 33)
    granting.is_tampered(body)


def test_a_node_cannot_be_turned_to_another_function(granting: Granting) -> None:
    body, other = one(granting), body_of([call("length", b"")])
    body.functions[0].CopyFrom(other.functions[0])
    granting.is_tampered(body)


def test_no_byte_of_arguments_can_be_changed(granting: Granting) -> None:
    body = one(granting)
    for bad in list(changed(body.arguments[0]))[::5]:
        body.arguments[0] = bad
        ran = granting.ran(body)
        assert not ran.results.node
        assert len(ran.results.failures) + len(ran.returned.node) == 1
    assert not granting.bomb.went_off


def test_unsigned_arguments_are_given_back(granting: Granting) -> None:
    body = one(granting)
    body.arguments[0] = granting.bomb.envelope
    granting.is_given_back(body, "the arguments came unsigned")


def test_arguments_under_a_key_that_is_not_held_are_given_back(granting: Granting) -> None:
    body = one(granting)
    body.arguments[0] = arguments(body, granting.bomb, ring=STRANGER)
    granting.is_given_back(body, STRANGER.signs_under.hex())


@pytest.mark.parametrize("ring", [None, STRANGER], ids=["unsigned", "under another key"])
def test_arguments_that_are_not_under_the_key_that_their_function_names_fail_that_node_alone(
    granting: Granting, ring: Keyring | None
) -> None:
    """Were it given back, one such node would keep the worker from all others of that function."""
    body = one(granting)
    body.functions[0].key_id = keyring().signs_under
    body.arguments[0] = arguments(body, granting.bomb, ring=ring) if ring else granting.bomb.envelope
    granting.is_tampered(body)


def test_whoever_only_names_a_key_fails_the_node(granting: Granting) -> None:
    body = one(granting)
    signed = arguments(body, granting.bomb, ring=STRANGER)
    body.arguments[0] = signed.replace(STRANGER.signs_under, keyring().signs_under)
    granting.is_tampered(body)


def test_arguments_of_a_node_adopted_by_other_code_are_those_of_the_code_it_was_made_with(granting: Granting) -> None:
    body = body_of([call("echo", 1), call("echo", 2)])
    old = function_digest(body.functions[0].name, "hash before")
    body.arguments[0] = arguments(body, "adopted", function=old)
    body.made_with.extend(["hash before", ""])
    assert granting.ran(body).values == ["adopted", 2]
    body.made_with[0] = "another hash"
    assert granting.ran(body).results.failures[0].type == TAMPERED


# --- values of sources ----------------------------------------------------------------------------------------


def joined(
    values: Mapping[int, Encoded], *named: object, refs: Mapping[int, Sequence[int]] | None = None
) -> pb.GrantBody:
    """A node that gets the values of the nodes 71, 72 and so on, whose promises are 1, 2 and so on."""
    return body_of([Wanted("echo", [list(named)], sources=[71, 72][: len(named)])], values, refs)


def pair() -> pb.GrantBody:
    return joined({71: encoded("one"), 72: encoded("two")}, promise(1), promise(2))


def test_the_values_of_two_sources_cannot_be_exchanged(granting: Granting) -> None:
    body = pair()
    body.value[0], body.value[1] = body.value[1], body.value[0]
    granting.is_tampered(body)


def test_the_order_of_sources_is_that_of_the_signed_arguments(granting: Granting) -> None:
    """Whatever else the broker says of which value belongs to which promise."""
    for reorder in (lambda body: body.source.reverse(), lambda body: body.value_node.reverse(), _swap_pairs):
        body = pair()
        reorder(body)
        assert granting.ran(body).values == [["one", "two"]]


def _swap_pairs(body: pb.GrantBody) -> None:
    for column in (body.value, body.value_id, body.value_node):
        column.reverse()


def test_a_value_said_to_be_of_another_node_is_refused(granting: Granting) -> None:
    body = pair()
    body.value_id[0], body.value_id[1] = body.value_id[1], body.value_id[0]
    granting.is_tampered(body)


def test_the_value_of_a_node_that_is_no_source_is_refused(granting: Granting) -> None:
    body = pair()
    body.value[0] = keyring().sign(granting.bomb.envelope, RESULT, INSTANCE, b"id of other node")
    granting.is_tampered(body)


def test_a_source_of_another_instance_is_refused(granting: Granting) -> None:
    body = pair()
    body.value[0] = keyring().sign(granting.bomb.envelope, RESULT, b"other instance's", body.value_id[0])
    granting.is_tampered(body)


def test_arguments_are_no_value(granting: Granting) -> None:
    body = pair()
    body.value[0] = keyring().sign(granting.bomb.envelope, ARGUMENTS, INSTANCE, body.value_id[0])
    granting.is_tampered(body)


def test_a_value_that_does_not_come_fails_the_node_that_needs_it(granting: Granting) -> None:
    body = pair()
    for column in (body.value, body.value_id, body.value_node):
        del column[0]
    assert granting.ran(body).failure.type == "dagorama.errors.ValueNotReadable"


@pytest.mark.parametrize("ring", [None, STRANGER], ids=["unsigned", "under another key"])
def test_a_value_that_cannot_be_checked_gives_the_node_back(granting: Granting, ring: Keyring | None) -> None:
    body = pair()
    unsigned = granting.bomb.envelope
    body.value[0] = ring.sign(unsigned, RESULT, INSTANCE, body.value_id[0]) if ring else unsigned
    granting.is_given_back(body, "the value came u")


def test_what_a_value_names_cannot_be_exchanged(granting: Granting) -> None:
    values = {71: encoded([promise(5), promise(6)]), 75: encoded("five"), 76: encoded("six")}
    body = joined(values, promise(1), refs={71: [75, 76]})
    assert granting.ran(body).values == [[["five", "six"]]]
    body.value_ref.reverse()
    assert granting.ran(body).values == [[["five", "six"]]]
    body.value[1], body.value[2] = body.value[2], body.value[1]
    granting.is_tampered(body)


def test_a_value_of_another_instance_may_be_named_by_a_value(granting: Granting) -> None:
    body = joined({71: encoded(promise(5)), 75: encoded("five")}, promise(1), refs={71: [75]})
    body.value[1] = keyring().sign(encode("inner").envelope, RESULT, b"other instance's", body.value_id[1])
    assert granting.ran(body).values == [["inner"]]


def test_a_promise_returned_through_a_thousand_nodes_is_checked_link_by_link(granting: Granting) -> None:
    values: dict[int, Encoded] = {71: encoded(promise(1001))}
    values.update((1000 + link, encoded(promise(1001 + link))) for link in range(1, 1000))
    values[2000] = encoded("the end")
    refs = {71: [1001], **{1000 + link: [1001 + link] for link in range(1, 1000)}}
    body = joined(values, promise(1), refs=refs)
    assert granting.ran(body).values == [["the end"]]
    body.value[500] = body.value[501]
    granting.is_tampered(body)


def test_a_failure_takes_the_place_only_of_what_the_arguments_tolerate(granting: Granting) -> None:
    for named, fails in ((tolerated(promise(1)), False), (promise(1), True)):
        body = joined({71: encoded("one")}, named)
        body.value[0] = pb.NodeFailure(function="m:Nodes.f", message="no").SerializeToString()
        body.failed.append(71)
        ran = granting.ran(body)
        assert bool(ran.results.failures) is fails


def test_results_are_signed_for_their_own_node(granting: Granting) -> None:
    body = body_of([call("echo", 1), call("echo", 2)])
    results = granting.ran(body).results
    results.value[0], results.value[1] = results.value[1], results.value[0]
    with pytest.raises(Exception, match="not what was signed"):
        values_of(results)
    assert set(results.attempt) <= ids.keys()


# --- whole workers ----------------------------------------------------------------------------------------------


def test_a_worker_says_which_keys_it_holds_and_never_the_keys(broker: ScriptedBroker) -> None:
    first, second = new_key(), new_key()
    with worker_process(broker, DAGORAMA_SIGNING_KEYS=f"{first},{second}", DAGORAMA_LOG_LEVEL="DEBUG") as process:
        spoken = broker.greeted()
        assert len(spoken.hello.key_ids) == 2
        spoken.send(done=True)
        code, errors = process.ended()
    assert code == 0
    assert first not in errors


def test_a_worker_whose_keys_cannot_be_read_says_so_and_does_not_start(broker: ScriptedBroker) -> None:
    with worker_process(broker, DAGORAMA_SIGNING_KEYS="secret") as process:
        code, errors = process.ended()
    assert code == 2
    assert "key 1 of DAGORAMA_SIGNING_KEYS is not one" in errors
    assert "secret" not in errors
