"""The HTTP listener answers probes whatever other clients do."""

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http import HTTPStatus
from threading import Event

import pytest

from dagorama_monitoring import listener as module
from dagorama_monitoring.listener import LONGEST_HEAD, MOST_CONNECTIONS, Answer, Listener, Request, listeners
from tests.support.fetching import SECONDS, fetch
from tests.support.limits import no_free_descriptor


async def page(request: Request) -> Answer:
    return Answer.text(HTTPStatus.OK, f"hello {request.headers.get('user-agent', '')}")


async def broken(request: Request) -> Answer:
    raise KeyError(request.path)


async def large(_: Request) -> Answer:
    return Answer(HTTPStatus.OK, bytes(32 << 20))


@pytest.fixture
def listener() -> Iterator[Listener]:
    [listener] = listeners("127.0.0.1", (0, {"/page": page, "/broken": broken, "/large": large}))
    yield listener
    listener.close()


@pytest.fixture
def logged() -> Iterator[Event]:
    """Yield an event that is set when the listener logs something."""
    event = Event()

    def note(record: logging.LogRecord) -> bool:
        event.set()
        return True

    module.log.addFilter(note)
    yield event
    module.log.removeFilter(note)


def connected(listener: Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.port), timeout=SECONDS)


def rest_of(connection: socket.socket) -> bytes:
    """All that comes until the other side closes the connection."""
    with connection.makefile("rb") as file:
        try:
            return file.read()
        except ConnectionResetError:
            return b""


def is_closed_after(connection: socket.socket, sent: bytes) -> bool:
    """Whether the other side refuses more bytes."""
    try:
        connection.sendall(sent)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_a_page_is_answered(listener: Listener) -> None:
    reply = fetch(f"{listener.url}/page?a=b", user_agent="a probe")
    assert (reply.status, reply.text) == (200, "hello a probe\n")
    assert reply.headers["Connection"] == "close"


def test_a_head_has_the_length_and_no_body(listener: Listener) -> None:
    reply = fetch(f"{listener.url}/page", "HEAD")
    assert (reply.status, reply.text, reply.headers["Content-Length"]) == (200, "", "7")


def test_another_path_is_told_which_ones_there_are(listener: Listener) -> None:
    reply = fetch(f"{listener.url}/pages")
    assert (reply.status, reply.text) == (404, "there is /page, /broken, /large here\n")


def test_other_methods_are_refused(listener: Listener) -> None:
    assert fetch(f"{listener.url}/page", "POST").status == 405


def test_a_page_that_fails_is_an_error_of_the_server_and_logged(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    reply = fetch(f"{listener.url}/broken")
    assert (reply.status, reply.text) == (500, "KeyError; see the log\n")
    assert "/broken could not be answered" in caplog.text


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\n", b"400"),
        (b"GET /page HTTP/1.1\r\nnothing\r\n:\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * LONGEST_HEAD + b"\r\n\r\n", b"431"),
    ],
    ids=["text", "TLS", "HTTP/2", "strange headers", "long headers"],
)
def test_garbage_is_answered_with_a_status(listener: Listener, sent: bytes, status: bytes) -> None:
    with closing(connected(listener)) as connection:
        connection.sendall(sent)
        assert rest_of(connection)[:12] in (b"HTTP/1.1 " + status, b"")
    assert fetch(f"{listener.url}/page").status == 200


def test_an_endless_request_is_cut_off(listener: Listener) -> None:
    with closing(connected(listener)) as connection:
        while not is_closed_after(connection, b"a" * 65_536):
            pass
    assert fetch(f"{listener.url}/page").status == 200


def test_idle_connections_keep_no_probe_out_and_the_oldest_is_closed(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEADLINE", 10 * SECONDS)
    with ExitStack() as stack:
        idle = [stack.enter_context(closing(connected(listener))) for _ in range(2 * MOST_CONNECTIONS)]
        assert fetch(f"{listener.url}/page").status == 200
        assert rest_of(idle[0]) == b""


def test_a_client_that_is_too_slow_is_cut_off(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE", 0.01)
    with closing(connected(listener)) as connection:
        connection.sendall(b"GET /page HTTP/1.1\r\n")
        assert rest_of(connection) == b""


def test_clients_that_read_nothing_keep_no_probe_out(listener: Listener) -> None:
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(closing(connected(listener))).sendall(b"GET /large HTTP/1.1\r\n\r\n")
        assert fetch(f"{listener.url}/page").status == 200


def test_a_client_that_hangs_up_half_way_does_no_harm(listener: Listener) -> None:
    with closing(connected(listener)) as connection:
        connection.sendall(b"GET /pa")
    assert fetch(f"{listener.url}/page").status == 200


def test_a_closed_listener_releases_its_port_and_its_connections() -> None:
    [listener] = listeners("127.0.0.1", (0, {"/page": page}))
    with closing(connected(listener)) as connection:
        assert fetch(f"{listener.url}/page").status == 200  # so the older connection has been accepted
        listener.close()
        assert rest_of(connection) == b""
    with socket.create_server(("127.0.0.1", listener.port)):
        pass


def test_pages_of_one_port_share_a_listener_and_pages_without_a_port_have_none() -> None:
    [listener] = listeners("127.0.0.1", (0, {"/a": page}), (None, {"/b": page}), (0, {"/c": page}))
    with closing(listener):
        assert list(listener.pages) == ["/a", "/c"]


def test_a_port_that_is_taken_is_one_sentence_and_no_other_port_stays_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()[1]
        other.close()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot serve HTTP on 127.0.0.1:{port}: .*in use"):
            listeners("127.0.0.1", (free, {"/a": page}), (port, {"/b": page}))
        with socket.create_server(("127.0.0.1", free)):
            pass


def test_clients_wait_for_a_free_descriptor_and_one_sentence_says_so(
    listener: Listener, caplog: pytest.LogCaptureFixture, logged: Event
) -> None:
    fetch(f"{listener.url}/page")  # its modules are loaded then
    with socket.socket() as client:
        with no_free_descriptor():
            client.connect(("127.0.0.1", listener.port))
            client.settimeout(SECONDS)
            assert logged.wait(SECONDS)
        client.sendall(b"GET /page HTTP/1.1\r\n\r\n")
        assert b"hello" in rest_of(client)
    why = "Too many open files: raise its limit (ulimit -n, LimitNOFILE= in systemd)"
    said = f"connections to {listener.url} wait, because this process cannot accept them: {why}"
    assert [record.getMessage() for record in caplog.records] == [said]
