"""Nothing secret in logs, errors, process listings or metrics: a marked token, key and argument go through everything.

Programs of their own at DEBUG, over TLS: a broker, a worker, a spawner, a command that asks for the status, and three
that are refused. What they write, how they are started and what the broker tells of itself is then searched.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from dagorama.cli.credentials import record_of
from dagorama.client.connection import Connection
from dagorama.settings import Settings
from tests.support.carrying import SECRET
from tests.support.certificates import Authority

ROOT = Path(__file__).parents[2]
NAME = "broker.test"
TOKENS = {role: f"dgt_marked-token-of-a-{role}" for role in ("spawner", "worker", "reader")}
STRANGE = "dgt_marked-token-of-nobody"
KEY = "bWFya2VkLXNpZ25pbmcta2V5LW1hcmtlZC1zaWduaW4"  # "marked-signing-key-marked-signin", as text
PASSED = 60.0



@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("secrets"))


class Run:
    """What all of them wrote, and what their command lines were."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.looked = b""
        self.written: dict[str, str] = {}
        self.command_lines = ""
        self._authority = Authority(folder)
        tokens = folder / "tokens.toml"
        tokens.write_text("".join(record_of(token, role) for role, token in TOKENS.items()))
        cert, key = self._authority.pair(NAME)
        served = {
            "DAGORAMA_TOKENS_FILE": str(tokens), "DAGORAMA_BROKER_TLS_CERT": cert, "DAGORAMA_BROKER_TLS_KEY": key,
            "DAGORAMA_BIND": "0.0.0.0", "DAGORAMA_PORT": "0", "DAGORAMA_STORE": f"sqlite:///{folder}/store",
        }  # fmt: skip
        with self._going("broker", ["-m", "dagorama_broker", "serve"], **served) as broker:
            assert broker.stderr is not None
            line = ""
            while "serving on" not in line:
                line = broker.stderr.readline()
                self.written["broker"] = self.written.get("broker", "") + line
            self._port = line.split("0.0.0.0:")[1].split(",")[0]
            self._work()

    def _work(self) -> None:
        with self._going("worker", ["-m", "dagorama.worker"], **self._client("worker")):
            self._done("spawner", ["-m", "tests.support.carrying"], **self._client("spawner"))
            self.looked = self._look()
            self._done("status", ["-m", "dagorama", "status"], **self._client("reader"))
        for name, token in ("a stranger", STRANGE), ("a reader that works", TOKENS["reader"]):
            self._done(name, ["-m", "dagorama.worker"], 2, **{**self._client("worker"), "DAGORAMA_AUTH_TOKEN": token})
        in_the_clear = {**self._client("worker"), "DAGORAMA_HOST": "192.0.2.1", "DAGORAMA_TLS_CA": ""}
        del in_the_clear["DAGORAMA_TLS_NAME"]
        self._done("one in the clear", ["-m", "dagorama.worker"], 2, **in_the_clear)

    def _look(self) -> bytes:
        """What a reader is told."""
        reader = Connection(
            Settings("127.0.0.1", int(self._port), auth_token=TOKENS["reader"], tls_ca=str(self._authority.file),
                     tls_name=NAME)
        )  # fmt: skip
        return reader.get_status().SerializeToString()

    def _client(self, role: str) -> dict[str, Any]:
        return {
            "DAGORAMA_HOST": "127.0.0.1", "DAGORAMA_PORT": self._port, "DAGORAMA_AUTH_TOKEN": TOKENS[role],
            "DAGORAMA_TLS_CA": str(self._authority.file), "DAGORAMA_TLS_NAME": NAME, "DAGORAMA_SIGNING_KEYS": KEY,
        }  # fmt: skip

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DAGORAMA_")}
        return {**clean, "PYTHONPATH": str(ROOT), "DAGORAMA_LOG_LEVEL": "DEBUG", **variables}

    @contextmanager
    def _going(self, name: str, command: list[str], **variables: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, *command], env=self._environment(variables), cwd=self._folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            yield process
            self.command_lines += command_lines()
        finally:
            process.terminate()
            out, err = process.communicate(timeout=PASSED)
            self.written[name] = self.written.get(name, "") + out + err

    def _done(self, name: str, command: list[str], code: int = 0, **variables: str) -> None:
        with self._going(name, command, **variables) as process:
            self.command_lines += command_lines()
            out, err = process.communicate(timeout=PASSED)
            self.written[name] = out + err
            assert process.returncode == code, out + err


def command_lines() -> str:
    """Of every process that there is."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended
    return "\n".join(found)


def test_all_of_them_said_something_at_debug(run: Run) -> None:
    assert "serving on 0.0.0.0" in run.written["broker"]
    assert "UNAUTHENTICATED" in run.written["broker"] or "unknown token" in run.written["broker"]
    assert "unknown token" in run.written["a stranger"]
    assert "may not call dagorama.v1.Broker/Work" in run.written["a reader that works"]
    assert "in clear text" in run.written["one in the clear"]
    assert "COMPLETED" in run.written["status"]


def test_no_token_no_key_and_no_argument_is_in_what_they_wrote(run: Run) -> None:
    for name, text in run.written.items():
        assert "marked" not in text, name
        assert KEY not in text, name
        for token in (*TOKENS.values(), STRANGE):
            assert sha256(token.encode()).hexdigest() not in text, name


def test_none_is_in_a_command_line(run: Run) -> None:
    assert "-m dagorama.worker" in run.command_lines
    assert "-m dagorama_broker serve" in run.command_lines
    for secret in (*TOKENS.values(), STRANGE, KEY, SECRET):
        assert secret not in run.command_lines


def test_the_broker_tells_none_of_it_to_those_who_look(run: Run) -> None:
    assert SECRET.encode() not in run.looked
    assert b"dgt_" not in run.looked
    assert KEY.encode() not in run.looked
    assert b"Unservable.entrypoint" in run.looked
