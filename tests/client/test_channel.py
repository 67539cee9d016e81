"""What a client presents and to whom: tokens, certificates, and what it says where it does not come through."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dagorama.api import broker_pb2
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama.cli.credentials import record_of
from dagorama.client.addresses import is_loopback
from dagorama.client.channel import Token, aio_channel, check
from dagorama.client.connection import Connection, connection
from dagorama.errors import AccessDenied, BrokerUnavailable, SettingsError, WorkersNotStarted
from dagorama.settings import Settings
from dagorama_broker.launch import LaunchedBroker
from tests.support.brokers import launch_broker
from tests.support.certificates import Authority
from tests.support.workers import launch_workers

NAME = "broker.test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secure")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def secure(folder: Path, authority: Authority) -> Iterator[LaunchedBroker]:
    """A broker that wants TLS, a certificate and a token."""
    cert, key = authority.pair(NAME)
    tokens = folder / "tokens.toml"
    tokens.write_text("".join(record_of(f"dgt_{role}", role) for role in ("client", "reader")))
    environment = {
        "DAGORAMA_BROKER_TLS_CERT": cert, "DAGORAMA_BROKER_TLS_KEY": key, "DAGORAMA_TOKENS_FILE": str(tokens),
        "DAGORAMA_BROKER_TLS_CLIENT_CA": str(authority.file),
    }  # fmt: skip
    with launch_broker(port=0, environment=environment) as broker:
        yield broker


def settings(broker: LaunchedBroker, authority: Authority, **changed: Any) -> Settings:
    cert, key = authority.pair("client")
    given = {"auth_token": "dgt_client", "tls_ca": str(authority.file), "tls_cert": cert, "tls_key": key}
    every: dict[str, Any] = {**given, "tls_name": NAME, **changed}
    return Settings(broker.host, broker.port, **every)


# --- through ------------------------------------------------------------------------------------------


def test_a_connection_presents_certificate_and_token(secure: LaunchedBroker, authority: Authority) -> None:
    link = Connection(settings(secure, authority))
    assert link.get_status().epoch == 1
    assert link.get_value(link.put_value(b"value")) == b"value"


def test_an_aio_channel_does_too(secure: LaunchedBroker, authority: Authority) -> None:
    async def ask() -> int:
        channel = aio_channel(settings(secure, authority))
        stub = BrokerStub(channel)
        reply = await stub.PutValue(iter([broker_pb2.ValueChunk(data=b"value")]))
        got = stub.GetValue(broker_pb2.GetValueRequest(sha256=reply.sha256))
        assert b"".join([chunk.data async for chunk in got]) == b"value"
        status = await stub.GetStatus(broker_pb2.GetStatusRequest())
        await channel.close()
        return status.epoch

    assert asyncio.run(ask()) == 1


def test_the_environment_says_all_of_it(
    secure: LaunchedBroker, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cert, key = authority.pair("client")
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("dgt_client\n")
    for name, value in {
        "HOST": secure.host, "PORT": f"{secure.port}", "AUTH_TOKEN_FILE": str(file), "TLS_CA": str(authority.file),
        "TLS_CERT": cert, "TLS_KEY": key, "TLS_NAME": NAME,
    }.items():  # fmt: skip
        monkeypatch.setenv(f"DAGORAMA_{name}", value)
    before = connection()
    assert before.get_status().epoch == 1
    monkeypatch.delenv("DAGORAMA_AUTH_TOKEN_FILE")
    monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", "dgt_reader")
    assert connection() is not before
    assert connection().get_status().epoch == 1


# --- not through ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "status", "said"),
    [
        ("", "UNAUTHENTICATED", "this broker requires a token: set DAGORAMA_AUTH_TOKEN"),
        ("dgt_another", "UNAUTHENTICATED", "unknown token: it was issued for another broker, or revoked"),
        ("dgt_reader", "PERMISSION_DENIED", "has the role reader, which may not call dagorama.v1.Broker/Exchange"),
    ],
)
def test_a_token_that_does_not_do_is_an_error_of_its_own(
    secure: LaunchedBroker, authority: Authority, token: str, status: str, said: str
) -> None:
    with pytest.raises(AccessDenied, match=said) as denied:
        Connection(settings(secure, authority, auth_token=token)).submit([broker_pb2.SubmitRequest()])
    assert denied.value.status == status
    assert "dgt_" not in str(denied.value)


def why_not(settings: Settings) -> str:
    with pytest.raises(BrokerUnavailable) as error:
        Connection(settings).get_status()
    return str(error.value)


@pytest.mark.slow
def test_what_is_in_the_way_of_a_connection_is_said_as_far_as_it_can_be_told(
    secure: LaunchedBroker, authority: Authority, tmp_path: Path
) -> None:
    plain = {"tls_ca": "", "tls_cert": "", "tls_key": "", "tls_name": ""}
    reasons = {
        "the broker may require TLS (set DAGORAMA_TLS_CA)": plain,
        "or a client certificate (set DAGORAMA_TLS_CERT)": {"tls_cert": "", "tls_key": ""},
        "none of the authorities in DAGORAMA_TLS_CA": {"tls_ca": str(Authority(tmp_path).file)},
        "its certificate is for another name: set DAGORAMA_TLS_NAME": {"tls_name": "other.test"},
    }
    # At localhost gRPC tries the address of IPv6 too, where nothing listens.
    tried = [
        (reason, replace(settings(secure, authority, **changed), host=host))
        for host in (secure.host, "localhost")
        for reason, changed in reasons.items()
    ]
    with ThreadPoolExecutor(len(tried)) as threads:  # each of them tries for seconds
        for (reason, _), said in zip(tried, threads.map(why_not, [each for _, each in tried]), strict=True):
            assert reason in said


@pytest.mark.slow
def test_a_broker_without_tls_is_told_from_none(authority: Authority) -> None:
    with launch_broker(port=0) as broker:
        assert "the server does not speak TLS" in why_not(settings(broker, authority))


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_worker_that_does_not_come_through_says_why(secure: LaunchedBroker, host: str) -> None:
    command = [sys.executable, "-m", "dagorama.worker", "--exit-on-completion"]
    environment = {"DAGORAMA_HOST": host, "DAGORAMA_PORT": f"{secure.port}", "PATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "the broker may require TLS (set DAGORAMA_TLS_CA)" in done.stderr.splitlines()[-1]


def test_a_worker_whose_token_is_refused_ends_with_a_sentence(secure: LaunchedBroker, authority: Authority) -> None:
    cert, key = authority.pair("client")
    environment = {
        "DAGORAMA_HOST": secure.host, "DAGORAMA_PORT": f"{secure.port}", "DAGORAMA_TLS_CA": str(authority.file),
        "DAGORAMA_TLS_CERT": cert, "DAGORAMA_TLS_KEY": key, "DAGORAMA_TLS_NAME": NAME, "PATH": "",
    }  # fmt: skip
    refusals = {"": "set DAGORAMA_AUTH_TOKEN", "dgt_reader": "which may not call dagorama.v1.Broker/Work"}
    for token, said in refusals.items():
        done = subprocess.run(
            [sys.executable, "-m", "dagorama.worker"], env={**environment, "DAGORAMA_AUTH_TOKEN": token},
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.returncode == 2
        *_, line = done.stderr.splitlines()
        assert line.startswith(f"worker: the broker at {secure.address} refuses it: ")
        assert said in line
        assert "dgt_" not in line


# --- not even sent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["192.0.2.1", "broker.example", "0.0.0.0", "localhost.example", "::2"])
def test_a_token_does_not_go_to_another_machine_in_the_clear(host: str, authority: Authority) -> None:
    said = rf"the token would be sent to {host} in clear text: set DAGORAMA_TLS_CA"
    with pytest.raises(SettingsError, match=said) as error:
        Connection(Settings(host, auth_token="dgt_marked"))
    assert "marked" not in str(error.value)
    check(Settings(host, auth_token="dgt_marked", tls_ca=str(authority.file)))
    check(Settings(host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_a_token_goes_to_this_machine_in_the_clear(host: str) -> None:
    assert is_loopback(host)
    check(Settings(host, auth_token="dgt_marked"))


def test_what_is_for_this_machine_takes_no_way_over_a_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(record_of("dgt_client", "client"))
    with launch_broker(port=0, environment={"DAGORAMA_TOKENS_FILE": str(tokens)}) as broker:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert Connection(Settings(broker.host, broker.port, auth_token="dgt_client")).get_status().epoch == 1


def test_the_commands_refuse_it_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "192.0.2.1")
    monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", "dgt_marked")
    done = subprocess.run([sys.executable, "-m", "dagorama.worker"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "the token would be sent to 192.0.2.1 in clear text" in done.stderr
    assert "marked" not in done.stderr


def test_workers_that_are_launched_refuse_it_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGORAMA_HOST", "192.0.2.1")
    monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", "dgt_marked")
    with pytest.raises(WorkersNotStarted, match=r"would be sent to 192\.0\.2\.1 in clear text"), launch_workers(1):
        pass
    said = capfd.readouterr().err
    assert "worker: the token would be sent to 192.0.2.1 in clear text" in said
    assert "marked" not in said


# --- files ----------------------------------------------------------------------------------------------


def token_file(path: Path, text: str, mode: int = 0o600) -> Settings:
    path.write_text(text)
    path.chmod(mode)
    return Settings(auth_token_file=str(path))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_token_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SettingsError, match=rf"users other than its owner can use it \(mode {mode:o}\): chmod 600"):
        Token.of(token_file(tmp_path / "token", "dgt_marked", mode))


@pytest.mark.parametrize("text", ["", "two tokens", "dgt_märked", "dgt_\x00marked", "dgt_" + "x" * 5000, "a\nb"])
def test_what_is_no_token_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="does not hold a token") as error:
        Token.of(token_file(tmp_path / "token", text))
    assert "marked" not in str(error.value)
    if text:
        with pytest.raises(SettingsError, match="DAGORAMA_AUTH_TOKEN does not hold a token"):
            Token.of(Settings(auth_token=text))


def test_a_token_that_is_replaced_in_its_file_is_used_from_the_next_call_on(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = Token.of(token_file(path, "dgt_first\n"))
    assert token is not None
    assert token.header() == ("authorization", "Bearer dgt_first")
    new = tmp_path / "new"
    token_file(new, "dgt_second")
    new.replace(path)
    assert token.header() == ("authorization", "Bearer dgt_second")
    path.unlink()
    assert token.header() == ("authorization", "Bearer dgt_second")


def test_files_that_cannot_be_used_are_named_by_their_variable(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.pair("client")
    ca, nothing, text = str(authority.file), str(tmp_path / "nothing"), tmp_path / "text"
    text.write_text("no certificate")
    for bad, said in [
        (Settings(tls_ca=nothing), "DAGORAMA_TLS_CA: the file cannot be read: No such file"),
        (Settings(tls_ca=str(text)), "DAGORAMA_TLS_CA: not a valid PEM file"),
        (Settings(tls_ca=ca, tls_cert=cert, tls_key=nothing), "DAGORAMA_TLS_KEY: the file cannot be read"),
        (Settings(tls_ca=ca, tls_cert=cert, tls_key=authority.pair("another")[1]), "the key does not match"),
    ]:
        with pytest.raises(SettingsError, match=said):
            check(bad)
    Path(key).chmod(0o644)
    with pytest.raises(SettingsError, match="other users of this machine may use"):
        check(Settings(tls_ca=ca, tls_cert=cert, tls_key=key))


def test_no_repr_shows_a_token() -> None:
    assert "marked" not in repr(Settings(auth_token="dgt_marked"))


def test_grpc_is_not_loaded_to_check_settings() -> None:
    code = (
        "import sys; from dagorama.client.channel import check; "
        "from dagorama.settings import Settings; check(Settings())"
    )
    subprocess.run([sys.executable, "-c", f"{code}; assert 'grpc' not in sys.modules"], check=True)


# --- certificates that are not valid now ---------------------------------------------------------------


def test_a_certificate_to_present_that_has_expired_is_said(authority: Authority) -> None:
    cert, key = authority.pair("expired", ends=datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(SettingsError, match=f"the certificate in {cert} expired on "):
        check(Settings(tls_ca=str(authority.file), tls_cert=cert, tls_key=key))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("days", "said"), [((-2, -1), "certificate has expired"), ((1, 2), "its certificate is not valid yet")]
)
async def test_a_broker_whose_certificate_is_not_valid_now_is_told_from_one_of_an_unknown_authority(
    tmp_path: Path, days: tuple[int, int], said: str
) -> None:
    authority = Authority(tmp_path)
    begins, ends = (datetime.now(UTC) + timedelta(days=number) for number in days)
    cert, key = authority.pair(NAME, begins=begins, ends=ends)
    pair = Path(key).read_bytes(), Path(cert).read_bytes()
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    link = Connection(Settings("127.0.0.1", port, tls_ca=str(authority.file), tls_name=NAME))
    with pytest.raises(BrokerUnavailable, match=said):
        await asyncio.to_thread(link.get_status)
    await server.stop(None)
