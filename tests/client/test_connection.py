"""The connection: one per process and address, bounded in time, and clear about what went wrong."""

import os
import socket
import subprocess
import sys
import threading
from hashlib import sha256

import grpc
import pytest

from dagorama.api import broker_pb2
from dagorama.client import chunks
from dagorama.client.addresses import target
from dagorama.client.connection import connection
from dagorama.client.status import broker_error
from dagorama.definition import generate_instance_id
from dagorama.errors import (
    BrokerError,
    BrokerOverloaded,
    BrokerUnavailable,
    NotFound,
    RequestRejected,
    SettingsError,
)
from dagorama.settings import Settings
from tests.support.recording_broker import RecordingBroker, serving


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_there_is_one_connection(broker: RecordingBroker) -> None:
    assert connection() is connection()


def test_a_change_of_address_is_noticed(broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    before = connection()
    with serving() as other:
        monkeypatch.setenv("DAGORAMA_PORT", str(other.port))
        assert connection() is not before
        generate_instance_id()
        assert other.instances
        assert not broker.instances


def test_a_bad_address_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_PORT", "many")
    with pytest.raises(SettingsError, match="DAGORAMA_PORT"):
        connection()


@pytest.mark.parametrize(
    ("host", "written"),
    [("localhost", "localhost:5"), ("::1", "[::1]:5"), ("[::1]", "[::1]:5"), ("10.0.0.1", "10.0.0.1:5")],
)
def test_an_address_is_written_as_grpc_wants_it(host: str, written: str) -> None:
    assert target(Settings(host=host, port=5)) == written


@pytest.mark.slow
def test_a_missing_broker_is_named_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
    port = free_port()
    monkeypatch.setenv("DAGORAMA_PORT", str(port))
    with pytest.raises(BrokerUnavailable, match=rf"127.0.0.1:{port} .*dagorama-broker serve") as refused:
        generate_instance_id()
    assert refused.value.status == "UNAVAILABLE"


def test_a_broker_that_starts_a_moment_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as broker:
        port = broker.port
    monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
    monkeypatch.setenv("DAGORAMA_PORT", str(port))
    late = serving(port)
    starter = threading.Timer(0.8, late.__enter__)
    starter.start()
    try:
        identifier = generate_instance_id()
        assert identifier.bytes in late.broker.instances
    finally:
        starter.join()
        late.__exit__()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("NOT_FOUND", NotFound),
        ("INVALID_ARGUMENT", RequestRejected),
        ("FAILED_PRECONDITION", RequestRejected),
        ("ALREADY_EXISTS", RequestRejected),
        ("RESOURCE_EXHAUSTED", BrokerOverloaded),
        ("INTERNAL", BrokerError),
    ],
)
def test_each_refusal_becomes_its_own_error(broker: RecordingBroker, status: str, kind: type[BrokerError]) -> None:
    broker.refusal = grpc.StatusCode[status], "because of this"
    with pytest.raises(kind, match="because of this") as refused:
        generate_instance_id()
    assert type(refused.value) is kind
    assert refused.value.status == status
    assert refused.value.__suppress_context__


def test_a_submission_whose_reply_was_lost_is_sent_again_as_it_was(broker: RecordingBroker) -> None:
    broker.replies_to_lose = 2
    identifier = generate_instance_id()
    assert broker.submissions == 3
    assert len({request.SerializeToString() for request in broker.requests}) == 1
    assert identifier.bytes in broker.instances


def test_an_error_without_a_status_is_still_an_error() -> None:
    assert broker_error(grpc.RpcError("odd"), "somewhere").status == "UNKNOWN"


def test_a_fork_gets_a_channel_of_its_own(broker: RecordingBroker) -> None:
    generate_instance_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, generate_instance_id().bytes)
        finally:
            os._exit(0)
    os.close(writer)
    made = os.read(reader, 16)
    os.waitpid(child, 0)
    assert made in broker.instances
    generate_instance_id()
    assert len(broker.instances) == 3


def test_a_large_value_travels_in_chunks(broker: RecordingBroker) -> None:
    data = os.urandom(5 * 1024 * 1024 + 1)
    digest = connection().put_value(data)
    assert digest == sha256(data).digest()
    assert connection().get_value(digest) == data


def test_a_value_beyond_the_limit_is_refused_before_it_is_sent(
    broker: RecordingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "VALUE_LIMIT", 1000)
    with pytest.raises(RequestRejected, match="1,001 bytes is more than dagorama carries"):
        connection().put_value(bytes(1001))
    assert not broker.large


def test_an_instance_can_be_asked_for(broker: RecordingBroker) -> None:
    identifier = generate_instance_id()
    assert connection().get_instance(identifier.bytes).instance == identifier.bytes


def test_several_requests_are_one_submission(broker: RecordingBroker) -> None:
    connection().submit([broker_pb2.SubmitRequest(), broker_pb2.SubmitRequest()])
    assert (broker.submissions, broker.streamed, len(broker.requests)) == (0, 1, 2)


def test_grpc_is_loaded_with_the_first_connection() -> None:
    code = (
        "import sys, dagorama.definition, dagorama.decorators, dagorama.serializer\n"
        "assert 'grpc' not in sys.modules and 'cloudpickle' not in sys.modules\n"
        "from dagorama.client.connection import connection\n"
        "connection()\n"
        "assert 'grpc' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_class_and_a_module_share_a_name_in_peace() -> None:
    code = (
        "import dagorama.decorators\n"
        "from dagorama import dagorama as decorator, resolve, DAGDefinition\n"
        "import dagorama\n"
        "assert dagorama.decorators.dagorama is decorator is dagorama.dagorama\n"
        "from dagorama.definition import DAGDefinition as same\n"
        "assert same is DAGDefinition\n"
        "assert 'resolve' in dir(dagorama)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
