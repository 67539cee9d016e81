"""What a child checks of what it is granted, whatever the broker says; and what becomes of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic_ns
from typing import Any

import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.models.outcome import outcome as tolerated
from dagorama.models.promise import DAGPromise
from dagorama.values.codec import Encoded, encode, encode_call
from dagorama.values.keys import SigningKey, new_key
from dagorama.values.rebind import sign
from dagorama.values.signing import ARGUMENTS, FAILURE, REBINDING, RESULT, Keyring, code_text, function_digest, keyring
from dagorama.worker.child.executor import Executor
from dagorama.worker.child.outbox import Outbox
from dagorama.worker.frames import Kind, Outcome
from dagorama.worker.spool_files import SpoolValues
from tests.support.bombs import Bomb, changed, cut_short
from tests.support.scripted_broker import ScriptedBroker, worker_process
from tests.support.worker_grants import INSTANCE, Wanted, body_of, call, encoded, ids, values_of

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

    def is_given_back(self, body: pb.GrantBody, why: str, what_to_do: str = "set DAGORAMA_SIGNING_KEYS") -> None:
        ran = self.ran(body)
        assert not ran.results.ByteSize()
        assert (list(ran.returned.node), ran.returned.reason) == (list(body.node), pb.UNCHECKABLE)
        assert why in ran.returned.detail
        assert what_to_do in ran.returned.detail
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
        pytest.param({"function": function_digest("tests.support.worker_nodes:Nodes.append", "hash")}, id="function"),
        pytest.param({"function": function_digest("tests.support.worker_nodes:Nodes.echo", "hash")}, id="hash"),
    ],
)
def test_arguments_of_another_place_fail_the_node_for_good(granting: Granting, place: dict[str, Any]) -> None:
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
    granting.is_given_back(body, "the signature of the arguments is missing")


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


def test_naming_a_key_without_holding_it_fails_the_node(granting: Granting) -> None:
    body = one(granting)
    signed = arguments(body, granting.bomb, ring=STRANGER)
    body.arguments[0] = signed.replace(STRANGER.signs_under, keyring().signs_under)
    granting.is_tampered(body)


def test_arguments_of_a_node_rebound_by_other_code_are_those_of_the_code_it_was_made_with(granting: Granting) -> None:
    body = body_of([call("echo", 1), call("echo", 2)])
    body.functions[0].class_code = ""
    old = function_digest(body.functions[0].name, "hash before")
    body.arguments[0] = arguments(body, "rebound", function=old)
    body.made_with.extend(["hash before", ""])
    body.rebindings.append(allowed(body, "hash before", "another hash"))
    body.rebinding.append(1)
    assert granting.ran(body).values == ["rebound", 2]
    body.made_with[0] = "another hash"
    assert granting.ran(body).results.failures[0].type == TAMPERED


# --- rebindings ------------------------------------------------------------------------------------------------


def allowed(body: pb.GrantBody, *made_with: str, ring: Keyring | None = None, **changed: Any) -> pb.SignedRebinding:
    """What a key holder signs to have the first node run by the code here."""
    wanted = {"function": body.functions[0].name, "hash": body.functions[0].hash, "instance": INSTANCE}
    return sign(pb.Rebinding(made_with=made_with, **{**wanted, **changed}), ring or keyring())


def rebound(granting: Granting) -> pb.GrantBody:
    """A node that goes off if it is run, was made with other code, and comes without a word on that."""
    body = one(granting)
    body.functions[0].class_code = ""
    body.arguments[0] = arguments(body, granting.bomb, function=function_digest(body.functions[0].name, "old code"))
    body.made_with.append("old code")
    return body


def with_rebinding(body: pb.GrantBody, rebinding: pb.SignedRebinding) -> pb.GrantBody:
    body.rebindings.append(rebinding)
    body.rebinding.append(1)
    return body


def test_what_is_allowed_is_run(granting: Granting) -> None:
    for rebinding in ({}, {"instance": b""}, {"hash": "", "deployed": True}):
        body = rebound(granting)
        body.arguments[0] = arguments(body, "run", function=function_digest(body.functions[0].name, "old code"))
        assert granting.ran(with_rebinding(body, allowed(body, "older", "old code", **rebinding))).values == ["run"]


def test_other_code_runs_nothing_on_the_brokers_word_alone(granting: Granting) -> None:
    granting.is_given_back(rebound(granting), "no signed rebinding allows it", "`dagorama rebind`")


def test_a_rebinding_that_is_there_and_not_named_allows_nothing(granting: Granting) -> None:
    body = rebound(granting)
    body.rebindings.append(allowed(body, "old code"))
    granting.is_given_back(body, "no signed rebinding allows it", "`dagorama rebind`")


def test_a_rebinding_under_a_key_that_is_not_held_says_which(granting: Granting) -> None:
    body = rebound(granting)
    with_rebinding(body, allowed(body, "old code", ring=STRANGER))
    granting.is_given_back(body, STRANGER.signs_under.hex(), "rebind it again")


def test_a_rebinding_of_a_later_version_is_not_guessed_at(granting: Granting) -> None:
    body = rebound(granting)
    rebinding = pb.Rebinding.FromString(allowed(body, "old code").rebinding)
    rebinding.version = 2
    signed = rebinding.SerializeToString()
    mac = keyring().sign_statement(signed, REBINDING)
    with_rebinding(body, pb.SignedRebinding(rebinding=signed, key_id=keyring().signs_under, mac=mac))
    granting.is_given_back(body, "has version 2", "update dagorama")


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (
            {"function": "tests.support.worker_nodes:Nodes.other"},
            "is for tests.support.worker_nodes:Nodes.other, not for tests.support.worker_nodes:Nodes.",
        ),
        ({"made_with": ["older"]}, "is for nodes made with older, not with old"),
        ({"made_with": []}, "not with old"),
        ({"hash": "another"}, "allows another, not"),
        ({"hash": ""}, "allows , not"),
        ({"instance": b"i" * 16}, "is for instance 69696969-6969-6969-6969-696969696969, not for"),
    ],
    ids=["function", "made with", "made with nothing", "hash", "no hash", "instance"],
)
def test_a_rebinding_of_something_else_allows_nothing(granting: Granting, other: dict[str, Any], why: str) -> None:
    body = rebound(granting)
    made_with = other.get("made_with", ["old code"])
    with_rebinding(body, allowed(body, *made_with, **{name: other[name] for name in other if name != "made_with"}))
    granting.is_tampered(body)
    assert why in granting.ran(body).failure.message


@pytest.mark.parametrize("named", [{}, {"hash": "", "deployed": True}], ids=["by hash", "deployed"])
def test_a_rebinding_allows_no_class_code_that_the_broker_names(granting: Granting, named: dict[str, Any]) -> None:
    """What the node makes would be signed for that code."""
    body = rebound(granting)
    with_rebinding(body, allowed(body, "old code", **named))
    body.functions[0].class_code = "echo=of the broker's choice"
    granting.is_tampered(body)


def test_a_rebinding_for_one_hash_does_not_tell_the_broker_which_code_is_here(granting: Granting) -> None:
    body = rebound(granting)
    with_rebinding(body, allowed(body, "old code"))
    body.functions[0].hash = ""
    granting.is_tampered(body)


def test_no_byte_of_a_rebinding_can_be_changed_added_or_left_out(granting: Granting) -> None:
    body = rebound(granting)
    signed = allowed(body, "old code")
    for name in ("rebinding", "mac"):
        good = getattr(signed, name)
        for bad in (*changed(good), *cut_short(good), good + b"\0", good + good):
            lie = pb.SignedRebinding(rebinding=signed.rebinding, key_id=signed.key_id, mac=signed.mac)
            setattr(lie, name, bad)
            body = rebound(granting)
            granting.is_tampered(with_rebinding(body, lie))


def test_no_signature_of_another_kind_is_taken_for_that_of_a_rebinding(granting: Granting) -> None:
    """Nor that of a rebinding for another's: each kind begins what is signed with a letter of its own."""
    body = rebound(granting)
    signed = allowed(body, "old code")
    for role in (ARGUMENTS, RESULT, FAILURE):
        lie = pb.SignedRebinding(rebinding=signed.rebinding, key_id=signed.key_id)
        lie.mac = keyring().sign_statement(signed.rebinding, role)
        granting.is_tampered(with_rebinding(rebound(granting), lie))


@pytest.mark.parametrize("key", [None, STRANGER], ids=["no rebinding", "under another key"])
def test_nothing_is_imported_before_its_rebinding_was_checked(
    granting: Granting, key: Keyring | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lying_about_here.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    body = rebound(granting)
    body.functions[0].name, body.functions[0].hash = "lying_about_here:X.f", ""
    body.arguments[0] = arguments(body, 1, function=function_digest("lying_about_here:X.f", "old code"))
    if key is not None:
        with_rebinding(body, allowed(body, "old code", ring=key, hash="", deployed=True))
    assert granting.ran(body).returned.reason == pb.UNCHECKABLE
    assert not (tmp_path / "imported").exists()


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
    granting.is_given_back(body, "the signing key" if ring else "the signature of the value is missing")


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
    with pytest.raises(Exception, match="was changed"):
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
    assert "key 1 of DAGORAMA_SIGNING_KEYS is not a valid signing key" in errors
    assert "secret" not in errors
