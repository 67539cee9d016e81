"""Objects over HTTP: connections are used again, and an answer that is not whole or no success is an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest

from dagorama.client import object_http
from dagorama.client.object_http import ObjectMissing, TransferFailed, download, upload

CONTENT = bytes(range(256)) * 10_000


class Store(ThreadingHTTPServer):
    """Keeps what is sent to it in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.connections = 0
        self.status = 200
        self.missing = 0  #: bytes that are left out at the end of an answer
        self.hangs_up = False  #: after each answer, although it does not say so
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that has hung up."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/bucket/name?X-Signature=s3cret"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_PUT(self) -> None:
        self.server.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(self.server.objects[self.path])

    def answer(self, body: bytes) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Length", f"{len(body)}")
        self.end_headers()
        self.wfile.write(body[: len(body) - self.server.missing])
        self.close_connection = self.server.hangs_up or bool(self.server.missing)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.shutdown()
    store.server_close()


def read(store: Store) -> bytes:
    found = bytearray()
    download(store.url, {}, len(CONTENT), found.extend)
    return bytes(found)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, BytesIO])
def test_what_was_sent_is_read(store: Store, kind: type[memoryview]) -> None:
    upload(store.url, {}, kind(CONTENT), len(CONTENT))
    assert read(store) == CONTENT


def test_a_connection_is_used_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        upload(store.url, {}, CONTENT, len(CONTENT))
        assert read(store) == CONTENT
    assert store.connections == 1
    monkeypatch.setattr(object_http, "IDLE", -1.0)
    assert read(store) == CONTENT
    assert store.connections == 2


def test_a_connection_that_was_closed_meanwhile_is_replaced(store: Store) -> None:
    store.hangs_up = True
    for _ in range(3):
        upload(store.url, {}, BytesIO(CONTENT), len(CONTENT))
        assert read(store) == CONTENT
    assert store.connections >= 6


def test_an_answer_that_breaks_off_is_an_error(store: Store) -> None:
    upload(store.url, {}, CONTENT, len(CONTENT))
    store.missing = 5
    with pytest.raises(TransferFailed, match="5 bytes"):
        read(store)
    store.missing = 0
    assert read(store) == CONTENT


@pytest.mark.parametrize("status", [301, 403, 500, 503])
def test_a_refusal_is_an_error_without_the_url(store: Store, status: int) -> None:
    store.objects["/bucket/name?X-Signature=s3cret"] = CONTENT
    store.status = status
    with pytest.raises(TransferFailed, match=f"answers {status}") as refused:
        read(store)
    assert "s3cret" not in str(refused.value)


def test_an_object_that_is_not_there_is_told_apart(store: Store) -> None:
    store.objects["/bucket/name?X-Signature=s3cret"] = CONTENT
    store.status = 404
    with pytest.raises(ObjectMissing):
        read(store)


def test_a_store_that_is_not_there_is_an_error_without_the_url(store: Store) -> None:
    store.shutdown()
    store.server_close()
    with pytest.raises(TransferFailed, match=r"does not answer: .*refused") as refused:
        upload(store.url, {}, CONTENT, len(CONTENT))
    assert "s3cret" not in str(refused.value)


def test_an_error_of_the_reader_is_its_own(store: Store) -> None:
    upload(store.url, {}, CONTENT, len(CONTENT))

    def take(block: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        download(store.url, {}, len(CONTENT), take)
