"""A client on the broker's machine: its stream goes over the broker's Unix socket, and over gRPC if it cannot."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dagorama import DAGDefinition, dagorama, resolve
from dagorama.api import broker_pb2 as pb
from dagorama.api.frames import FrameReader, frame
from dagorama.client import local_socket, stream, wires
from dagorama.client.connection import connection
from dagorama.client.wires import GrpcWire, LocalWire
from dagorama.definition import generate_instance_id
from dagorama.errors import AccessDenied, BrokerError, BrokerUnavailable, NodeCancelled, SettingsError
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.tokens import Tokens

PATIENCE = 20


class Task(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, payload: bytes) -> bytes:
        return payload


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LaunchedBroker]:
    with launch_broker(store=f"sqlite:///{tmp_path}/broker.sqlite3") as broker:
        yield broker


def wire() -> type:
    """How the last request of this process went to the broker."""
    found = connection()._exchange._stream
    assert found is not None
    return type(found.wire)


def announced() -> pb.LocalSocket:
    found: pb.LocalSocket = connection().get_shared_folder().socket
    return found


# --- which transport ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("broker")
def test_a_client_of_the_same_user_uses_the_socket() -> None:
    generate_instance_id()
    assert wire() is LocalWire


@pytest.mark.parametrize("of", ["client", "broker"])
def test_the_setting_turns_it_off(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with launch_broker(environment={"DAGORAMA_LOCAL_SOCKET": "0"} if of == "broker" else {}):
        if of == "client":
            monkeypatch.setenv("DAGORAMA_LOCAL_SOCKET", "0")
        generate_instance_id()
        assert wire() is GrpcWire


@pytest.mark.usefixtures("broker")
def test_a_setting_that_is_neither_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_LOCAL_SOCKET", "perhaps")
    with pytest.raises(SettingsError, match="DAGORAMA_LOCAL_SOCKET is 'perhaps': it must be 1 or 0"):
        generate_instance_id()


@pytest.mark.usefixtures("broker")
def test_a_socket_in_a_folder_that_others_can_enter_is_not_used() -> None:
    folder = Path(announced().path).parent
    folder.chmod(0o755)
    generate_instance_id()
    assert wire() is GrpcWire


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.usefixtures("broker")
def test_a_socket_in_a_folder_of_another_user_is_not_used() -> None:
    folder = Path(announced().path).parent
    os.chown(folder, 65534, 65534)
    try:
        generate_instance_id()
        assert wire() is GrpcWire
    finally:
        os.chown(folder, 0, 0)


@pytest.mark.parametrize("is_bound", [True, False], ids=["a socket without a process", "no socket"])
@pytest.mark.usefixtures("broker")
def test_a_stale_socket_is_not_used_and_debug_output_says_so(
    is_bound: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = announced().path
    os.unlink(path)
    if is_bound:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
    monkeypatch.setenv("DAGORAMA_LOG_LEVEL", "DEBUG")
    generate_instance_id()
    assert wire() is GrpcWire
    (record,) = (each for each in caplog.records if "local socket" in each.message)
    assert record.levelno == logging.DEBUG
    assert record.message.endswith("Exchange goes over gRPC")


class Impostor(threading.Thread):
    """Another program at the path of a broker's socket, which says one of these whenever it has heard something."""

    def __init__(self, path: str, *said: bytes) -> None:
        super().__init__(daemon=True)
        self.said, self.heard = said, list[bytes]()
        os.unlink(path)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen()
        self.start()

    def run(self) -> None:
        client, _ = self.socket.accept()
        with client, self.socket:
            for said in self.said:
                self.heard.append(client.recv(4096))
                client.sendall(said)


@pytest.mark.parametrize("said", [b"", b"\xff" * 20], ids=["nothing", "what is no frame"])
@pytest.mark.usefixtures("broker")
def test_a_socket_that_does_not_speak_the_protocol_is_not_used(said: bytes) -> None:
    impostor = Impostor(announced().path, said)
    generate_instance_id()
    assert wire() is GrpcWire
    impostor.join(PATIENCE)
    ((_, body),) = FrameReader(4096).feed(impostor.heard[0])
    assert pb.LocalHello.FromString(body).call == "Exchange"


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("kind", [0, 1], ids=["a message", "the end of the call"])
def test_a_message_that_cannot_be_read_is_an_error_at_once(kind: int) -> None:
    Impostor(announced().path, frame(kind=2), frame(b"\xff\xff", kind))
    with pytest.raises(BrokerError, match="unexpected message from the broker") as error:
        generate_instance_id()
    assert error.value.status == "INTERNAL"


# --- tokens ---------------------------------------------------------------------------------------------


def test_a_token_is_refused_with_the_same_error_as_over_grpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(tmp_path / "tokens.toml")
    for role in ("client", "worker", "reader"):
        tokens.add(role, role)
    errors: dict[str, set[tuple[str, str]]] = {}
    with launch_broker(environment={"DAGORAMA_TOKENS_FILE": str(tokens.path)}):
        for on in ("1", "0"):
            monkeypatch.setenv("DAGORAMA_LOCAL_SOCKET", on)
            errors[on] = set()
            for token in ("dgt_unheard-of", tokens["reader"], tokens["worker"]):
                monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", token)
                with pytest.raises(AccessDenied) as denied:
                    generate_instance_id()
                errors[on].add((denied.value.status, str(denied.value)))
            monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", tokens["client"])
            generate_instance_id()
            assert wire() is (LocalWire if on == "1" else GrpcWire)
            connection().close_stream()
    assert len(errors["1"]) == 3
    assert errors["1"] == errors["0"]


# --- the stream -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("broker")
def test_threads_share_one_connection() -> None:
    generate_instance_id()
    first = connection()._exchange._stream
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda number: Task()(bytes(number * 1000)), range(40)))
    assert len({instance.instance_id for instance, _ in made}) == 40
    assert connection()._exchange._stream is first


@pytest.mark.usefixtures("broker")
def test_messages_of_all_sizes_pass() -> None:
    for size in (0, 1, 65_536, 200_000):
        Task()(bytes(size))
    assert wire() is LocalWire


@pytest.mark.usefixtures("broker")
def test_an_idle_stream_is_closed_and_the_next_request_opens_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "IDLE", 0.01)
    for _ in range(2):
        generate_instance_id()
        idle = connection()._exchange._stream
        assert idle is not None
        idle._thread.join(PATIENCE)
        assert idle.is_over
        assert wire() is LocalWire


@pytest.mark.usefixtures("broker")
def test_a_wait_keeps_the_stream_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "IDLE", 0.01)
    instance, promise = Task()(b"x")
    with pytest.raises(TimeoutError):
        resolve(instance, promise, timeout=0.3)
    assert wire() is LocalWire


def test_a_broker_that_was_killed_and_restarted_is_found_at_its_new_socket(broker: LaunchedBroker) -> None:
    generate_instance_id()
    before = announced()
    broker.kill()
    broker.start()
    generate_instance_id()
    assert wire() is LocalWire
    assert announced().path != before.path


def test_a_wait_goes_on_at_a_restarted_broker(broker: LaunchedBroker) -> None:
    instance, promise = Task()(b"x")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(resolve, instance, promise, timeout=PATIENCE)
        broker.kill()
        broker.start()
        connection().cancel(instance.instance_id.bytes, [])
        with pytest.raises(NodeCancelled):
            waiting.result(PATIENCE)
    assert wire() is LocalWire


def test_a_broker_that_is_stopped_is_given_up(broker: LaunchedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal stops it, so that the connection stays; the time after which that is noticed is that of gRPC."""
    for name, seconds in {"BROKER_SILENCE": 0.3, "PING_EVERY": 0.1}.items():
        monkeypatch.setattr(wires, name, seconds)
    generate_instance_id()
    found = connection()._exchange._stream
    assert found is not None
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        asked = found.ask(pb.Request(submit=pb.SubmitRequest()))
        assert asked is not None
        with pytest.raises(BrokerUnavailable, match=r"the broker was silent for 0\.3 seconds") as error:
            asked[0].hear(PATIENCE)
        assert error.value.was_connected
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    generate_instance_id()


def test_a_send_that_a_signal_handler_breaks_off_breaks_the_stream_and_nothing_else(
    broker: LaunchedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next request would begin in the middle of a frame."""
    generate_instance_id()
    found = connection()._exchange._stream
    assert found is not None
    assert isinstance(found.wire, LocalWire)

    class Interrupted:
        def __init__(self, whole: socket.socket) -> None:
            self._whole = whole

        def __getattr__(self, name: str) -> object:
            return getattr(self._whole, name)

        def sendall(self, data: bytes) -> None:
            self._whole.sendall(data[:3])
            raise KeyboardInterrupt

    monkeypatch.setattr(found.wire, "_socket", Interrupted(found.wire._socket))
    with pytest.raises(KeyboardInterrupt):
        generate_instance_id()
    generate_instance_id()
    assert connection()._exchange._stream is not found


# --- forks ----------------------------------------------------------------------------------------------


def forked(code: int) -> int:
    """Run the child's part: make an instance over a socket of its own; return the exit code."""
    try:
        generate_instance_id()
        return code if wire() is LocalWire else 1
    except BaseException as error:
        print(error, file=sys.stderr)
        return 2


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("is_waiting", [False, True], ids=["an idle stream", "a pending request"])
def test_a_fork_gets_a_connection_of_its_own_and_the_parent_keeps_its(is_waiting: bool) -> None:
    instance, promise = Task()(b"x")
    before = connection()._exchange._stream
    assert before is not None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(resolve, instance, promise, timeout=PATIENCE) if is_waiting else None
        while is_waiting and not before._listeners:
            pass
        child = os.fork()
        if child == 0:
            is_closed = isinstance(before.wire, LocalWire) and before.wire._socket.fileno() == -1
            os._exit(forked(42) if is_closed else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
        assert before.is_over is not is_waiting
        generate_instance_id()
        assert (connection()._exchange._stream is before) is is_waiting
        if waiting is not None:
            connection().cancel(instance.instance_id.bytes, [])
            with pytest.raises(NodeCancelled):
                waiting.result(PATIENCE)


# --- frames ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 4, 5, 6, 7, 100])
def test_frames_may_arrive_in_any_pieces(step: int) -> None:
    sent = [(0, b""), (0, b"a"), (2, b""), (1, bytes(300)), (0, b"end")]
    data = b"".join(frame(body, kind) for kind, body in sent)
    reader = FrameReader(300)
    found = []
    for at in range(0, len(data), step):
        found += reader.feed(data[at : at + step])
    assert found == sent
    assert not reader.is_partial


def test_a_path_that_is_empty_or_no_path_is_no_socket() -> None:
    for path in ("", "relative", "/nowhere/socket", "/\0"):
        assert not local_socket.is_private(pb.LocalSocket(path=path, nonce="word"))
