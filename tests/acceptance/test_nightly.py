"""The sample of nightly work: a schedule, a cache, and a hook that sends a mail to the SMTP server of this test."""

from __future__ import annotations

import re
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from queue import Queue

import pytest

SAMPLE = Path(__file__).parents[2] / "samples/nightly.py"


class _Mails(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self) -> None:
        self.mails: Queue[Message] = Queue()
        self.refusals = 1  #: connections that are turned away first, as by a server that starts
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    server: _Mails

    def handle(self) -> None:
        if self.server.refusals:
            self.server.refusals -= 1
            self._say("421 come back later")
            return
        self._say("220 ready")
        while command := self.rfile.readline().strip().upper():
            if command == b"DATA":
                self._say("354 go on")
                self.server.mails.put(message_from_bytes(b"".join(iter(self.rfile.readline, b".\r\n"))))
            self._say("221 bye" if command == b"QUIT" else "250 ok")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@pytest.fixture
def mails() -> Iterator[_Mails]:
    with _Mails() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_mail_arrives_for_each_night_that_has_failed_and_prices_are_looked_up_once_for_all(
    mails: _Mails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTLY_SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("NIGHTLY_SMTP_PORT", str(mails.server_address[1]))
    program = subprocess.Popen([sys.executable, str(SAMPLE)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        mail = mails.mails.get(timeout=100)
        mails.mails.get(timeout=100)
    finally:
        program.send_signal(signal.SIGINT)
        printed, errors = program.communicate(timeout=60)
    assert re.fullmatch(r"The nightly count of \d\d:\d\d:\d\d has failed", mail["Subject"]), errors
    text = mail.get_payload()
    assert isinstance(text, str)
    assert "Nightly.count" in text
    assert "invalid literal for int() with base 10: 'many'" in text
    assert "return int(STOCK[city])" in text
    assert mails.refusals == 0, "the first attempt of the hook was turned away"
    looked_up = [line for line in printed.splitlines() if line.startswith("Looking up the price in ")]
    assert sorted(line.rpartition(" ")[2] for line in looked_up) == ["amsterdam", "berlin", "copenhagen"]
