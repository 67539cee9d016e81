"""What is signed so that other code may run nodes: what the broker says there is, and no more than was asked for."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner

from dagorama.__main__ import main
from dagorama.api import broker_pb2 as pb
from dagorama.client.control import retry_failed
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition
from dagorama.errors import RequestRejected, TamperedValue
from dagorama.values.rebind import Wanted, check_rebinding
from dagorama.values.signing import keyring
from tests.support.recording_broker import RecordingBroker

NAME = "work:Task.entrypoint"
INSTANCE = UUID(int=5)


class Sample(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> str:
        return "value"


def rebind(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["rebind", NAME, *arguments])


def what_is_signed(request: pb.RebindRequest) -> pb.Rebinding:
    """As a worker reads it, which checks it for a node that it is for."""
    rebinding = pb.Rebinding.FromString(request.rebinding.rebinding)
    wanted = Wanted(bytes(16), rebinding.instance or bytes(16), NAME, rebinding.made_with[0], rebinding.hash)
    check_rebinding(request.rebinding, wanted, keyring())
    return rebinding


def test_the_command_signs_what_the_broker_says_there_is_and_shows_it(broker: RecordingBroker) -> None:
    broker.rebindable = pb.RebindReply(rebound=2, hash="new", made_with=["old", "old entrypoint=old", "older"])
    result = rebind()
    assert result.exit_code == 0, result.output
    look, request = broker.rebindings
    assert (look.look, look.HasField("rebinding"), request.look) == (True, False, False)
    assert (request.function, request.hash) == (NAME, "new")
    rebinding = what_is_signed(request)
    assert (rebinding.function, rebinding.hash, rebinding.deployed, rebinding.instance) == (NAME, "new", False, b"")
    assert list(rebinding.made_with) == ["old", "old entrypoint=old", "older"]
    assert result.stdout == "2 nodes rebound to new\n"
    assert result.stderr == (
        f"signed with the key {keyring().signs_under.hex()}: nodes of {NAME} created with old, older, of all "
        "instances, may run with new\n"
    )


def test_the_signature_is_for_the_instance_that_is_named(broker: RecordingBroker) -> None:
    broker.rebindable = pb.RebindReply(rebound=1, hash="new", made_with=["old"])
    result = rebind("--instance", str(INSTANCE), "--hash", "new", "--from-hash", "old")
    look, request = broker.rebindings
    assert (look.instance, list(look.from_hash)) == (INSTANCE.bytes, ["old"])
    assert (request.instance, list(request.from_hash)) == (INSTANCE.bytes, ["old"])
    assert what_is_signed(request).instance == INSTANCE.bytes
    assert f"of instance {INSTANCE}," in result.stderr


def test_nothing_is_signed_if_no_node_has_other_code(broker: RecordingBroker) -> None:
    broker.rebindable = pb.RebindReply(hash="new")
    result = rebind("--json")
    assert json.loads(result.stdout) == {"schema_version": 1, "rebound": 0, "hash": "new"}
    assert result.stderr == ""
    assert [request.look for request in broker.rebindings] == [True]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--hash", "newer"), "code that you did not name: new; name it (--hash new) or name none"),
        (("--from-hash", "old"), "code that you did not name: older; name it (--from-hash older) or name none"),
    ],
    ids=["hash", "from"],
)
def test_a_broker_cannot_have_more_signed_than_was_named(
    broker: RecordingBroker, arguments: tuple[str, ...], said: str
) -> None:
    broker.rebindable = pb.RebindReply(rebound=2, hash="new", made_with=["old", "older entrypoint=older"])
    result = rebind(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert [request.look for request in broker.rebindings] == [True]


def test_nodes_that_no_worker_may_run_all_the_same_are_told_of(broker: RecordingBroker) -> None:
    unservable = pb.Unschedulable(queued=2, reason="the only connected worker may not run it: it does not hold the key")
    broker.rebindable = pb.RebindReply(rebound=2, hash="new", made_with=["old"], unschedulable=[unservable])
    assert f"2 nodes still cannot run: {unservable.reason}\n" in rebind().stderr


def test_a_missing_signing_key_is_named(
    broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DAGORAMA_SIGNING_KEYS", "no key")
    broker.rebindable = pb.RebindReply(rebound=2, hash="new", made_with=["old"])
    result = rebind()
    assert (result.exit_code, result.stdout) == (78, "")
    assert "is not a valid signing key: `dagorama keys new` prints one" in result.stderr


def test_a_retry_with_new_code_signs_for_its_instance_and_what_is_deployed(broker: RecordingBroker) -> None:
    instance, promise = Sample()()
    rebindable = [pb.Rebindable(function=name, made_with=["old", "older"]) for name in (NAME, "work:Task.other")]
    broker.retried = pb.RetryReply(queued=1, rebound=2, rebindable=rebindable)
    assert retry_failed(instance, promise, downstream=True, new_code=True).rebound == 2
    look, request = broker.retries
    assert (look.look, len(look.rebindings), look.downstream, list(look.node)) == (True, 0, True, [promise.node_id])
    assert (request.look, request.new_code, request.node) == (False, True, look.node)
    for signed, found in zip(request.rebindings, rebindable, strict=True):
        rebinding = pb.Rebinding.FromString(signed.rebinding)
        assert (rebinding.function, rebinding.made_with) == (found.function, found.made_with)
        assert (rebinding.hash, rebinding.deployed, rebinding.instance) == ("", True, instance.instance_id.bytes)
        wanted = Wanted(promise.node_id, instance.instance_id.bytes, found.function, "older", "whatever")
        check_rebinding(signed, wanted, keyring())
        with pytest.raises(TamperedValue, match="is for instance"):
            check_rebinding(signed, wanted._replace(instance=INSTANCE.bytes), keyring())


def test_a_retry_by_the_same_code_signs_nothing(broker: RecordingBroker) -> None:
    instance, promise = Sample()()
    retry_failed(instance, promise)
    (request,) = broker.retries
    assert (request.look, request.new_code, len(request.rebindings)) == (False, False, 0)


def test_what_the_broker_refuses_to_look_at_is_not_signed(broker: RecordingBroker) -> None:
    import grpc

    instance, promise = Sample()()
    broker.refusal = (grpc.StatusCode.FAILED_PRECONDITION, "nothing in it failed")
    with pytest.raises(RequestRejected, match="nothing in it failed"):
        retry_failed(instance, promise, new_code=True)
