"""TLS and mutual TLS: whose certificate is taken, what everybody else is told, and files that cannot be used."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dagorama.api import broker_pb2
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama_broker.launch import LaunchedBroker
from dagorama_broker.rpc.tls import server_credentials
from tests.support.brokers import broker_command, launch_broker
from tests.support.certificates import Authority
from tests.support.commands import forked
from tests.support.raw import PATIENCE

NAME = "broker.test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[LaunchedBroker]:
    cert, key = authority.pair(NAME)
    environment = {"DAGORAMA_BROKER_TLS_CERT": cert, "DAGORAMA_BROKER_TLS_KEY": key}
    with launch_broker(port=0, environment=environment) as broker:
        yield broker


@pytest.fixture(scope="module")
def mutual(authority: Authority) -> Iterator[LaunchedBroker]:
    cert, key = authority.pair(NAME)
    environment = {
        "DAGORAMA_BROKER_TLS_CERT": cert,
        "DAGORAMA_BROKER_TLS_KEY": key,
        "DAGORAMA_BROKER_TLS_CLIENT_CA": str(authority.file),
    }
    with launch_broker(port=0, environment=environment) as broker:
        yield broker


async def outcome(broker: LaunchedBroker, *, ca: Authority | None, pair: tuple[str, str] | None = None) -> str:
    """The name of the status of a call."""
    options = [("grpc.ssl_target_name_override", NAME)]
    channel = grpc.aio.insecure_channel(broker.address)
    if ca is not None:
        cert, key = [Path(file).read_bytes() for file in pair] if pair else (None, None)
        credentials = grpc.ssl_channel_credentials(ca.file.read_bytes(), key, cert)
        channel = grpc.aio.secure_channel(broker.address, credentials, options)
    async with channel:
        try:
            await BrokerStub(channel).GetStatus(broker_pb2.GetStatusRequest(), timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


async def test_a_client_that_trusts_the_brokers_authority_is_served(
    secure: LaunchedBroker, authority: Authority
) -> None:
    assert await outcome(secure, ca=authority) == "OK"


async def test_neither_plain_text_nor_another_authority_comes_through(secure: LaunchedBroker, other: Authority) -> None:
    assert await outcome(secure, ca=None) == "UNAVAILABLE"
    assert await outcome(secure, ca=other) == "UNAVAILABLE"


async def test_mutual_tls_wants_a_certificate_of_its_authority(
    mutual: LaunchedBroker, authority: Authority, other: Authority
) -> None:
    assert await outcome(mutual, ca=authority, pair=authority.pair("worker")) == "OK"
    assert await outcome(mutual, ca=authority) == "UNAVAILABLE"
    assert await outcome(mutual, ca=authority, pair=other.pair("worker")) == "UNAVAILABLE"
    assert await outcome(mutual, ca=None) == "UNAVAILABLE"


# --- health and status ----------------------------------------------------------------------------------


def ask(command: str, broker: LaunchedBroker, *options: str) -> tuple[int, str]:
    done = broker_command(command, "--host", broker.host, "--port", f"{broker.port}", *options)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_health_is_asked_over_tls(secure: LaunchedBroker, authority: Authority) -> None:
    code, said = ask("health", secure, "--tls-ca", str(authority.file), "--tls-name", NAME)
    assert code == 0, said
    code, said = ask("health", secure)
    assert code == 1
    assert said == f"dagorama-broker: no broker answers at {secure.address}, or it requires TLS (set DAGORAMA_TLS_CA)\n"


def test_health_presents_a_certificate_where_one_is_wanted(
    mutual: LaunchedBroker, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = authority.pair("probe")
    for name, value in {"CA": str(authority.file), "CERT": cert, "KEY": key, "NAME": NAME}.items():
        monkeypatch.setenv(f"DAGORAMA_TLS_{name}", value)
    assert ask("health", mutual) == (0, "serving\n")


def test_a_token_does_not_go_to_another_machine_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGORAMA_AUTH_TOKEN", "dgt_marked")
    done = forked("status", "--host", "192.0.2.1")
    assert done.returncode == 78
    assert "the token would be sent to 192.0.2.1 in clear text: set DAGORAMA_TLS_CA" in done.stderr
    assert "marked" not in done.stderr


def test_an_unfinished_pair_of_options_is_one_sentence() -> None:
    done = broker_command("health", "--tls-cert", "x")
    assert done.returncode == 78
    assert done.stderr == (
        "dagorama-broker: DAGORAMA_TLS_CERT and DAGORAMA_TLS_KEY must be set together, and only with DAGORAMA_TLS_CA\n"
        "See docs/reference/errors.md#settingserror\n"
    )


# --- files that cannot be used --------------------------------------------------------------------------


def refused(*options: str) -> str:
    done = broker_command("serve", "--port", "0", "--store", "memory://", *options)
    assert done.returncode == 78, done.stderr
    _, address = done.stderr.splitlines()
    assert address == "See docs/reference/errors.md#settingserror"
    return done.stderr


@pytest.mark.slow
def test_files_that_cannot_be_used_are_one_sentence_and_exit_code_2(
    authority: Authority, other: Authority, tmp_path: Path
) -> None:
    cert, key = authority.pair(NAME)
    nothing, text = tmp_path / "nothing", tmp_path / "text"
    text.write_text("not a certificate")
    for bad in ([str(nothing), key], [cert, str(nothing)]):
        assert "cannot be read: No such file" in refused("--tls-cert", bad[0], "--tls-key", bad[1])
    for bad in ([str(text), key], [cert, str(text)], [cert, other.pair(NAME)[1]]):
        assert "or the key does not match the certificate" in refused("--tls-cert", bad[0], "--tls-key", bad[1])
    pair = ["--tls-cert", cert, "--tls-key", key]
    assert f"--tls-client-ca: {text} is not a valid PEM file" in refused(*pair, "--tls-client-ca", str(text))
    assert f"the tokens in {nothing} cannot be read" in refused("--tokens", str(nothing))


def test_a_certificate_that_is_not_valid_now_is_said_with_the_date(authority: Authority) -> None:
    now = datetime.now(UTC)
    cert, key = authority.pair("expired.test", ends=now - timedelta(hours=1))
    assert f"the certificate in {cert} expired on {now - timedelta(hours=1):%Y-%m-%d %H}" in refused(
        "--tls-cert", cert, "--tls-key", key
    )
    cert, key = authority.pair("early.test", begins=now + timedelta(days=1), ends=now + timedelta(days=2))
    assert "is not valid before" in refused("--tls-cert", cert, "--tls-key", key)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")
def test_files_that_another_user_could_have_written_are_refused(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.pair(NAME)
    client_ca = Path(shutil.copy(authority.file, tmp_path / "ca.pem"))
    options = ["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", str(client_ca)]
    client_ca.chmod(0o664)
    assert "lists whom to trust, and users other than its owner can write to it: chmod go-w" in refused(*options)
    client_ca.chmod(0o644)
    os.chown(client_ca, 12345, 12345)
    assert f"{client_ca} belongs to another user (12345)" in refused(*options)
    os.chown(client_ca, 0, 0)
    foreign = str(shutil.copy(key, tmp_path / "key"))
    os.chown(foreign, 12345, 12345)
    assert f"{foreign} belongs to another user" in refused("--tls-cert", cert, "--tls-key", foreign)


def test_health_says_what_is_wrong_with_a_certificate(
    secure: LaunchedBroker, authority: Authority, other: Authority
) -> None:
    code, said = ask("health", secure, "--tls-ca", str(authority.file), "--tls-name", "other.test")
    assert (code, "its certificate is for another name" in said) == (1, True)
    code, said = ask("health", secure, "--tls-ca", str(other.file), "--tls-name", NAME)
    assert (code, "is not signed by an authority" in said) == (1, True)


def test_half_of_a_pair_is_one_sentence(authority: Authority) -> None:
    cert, _ = authority.pair(NAME)
    assert "--tls-cert and --tls-key must be set together" in refused("--tls-cert", cert)
    assert "--tls-cert and --tls-key must be set together" in refused("--tls-client-ca", str(authority.file))


def test_a_key_that_everybody_may_read_is_refused(authority: Authority) -> None:
    cert, key = authority.pair("loose.test")
    Path(key).chmod(0o604)
    assert "every user of this machine may use it: chmod 600" in refused("--tls-cert", cert, "--tls-key", key)


def test_a_key_with_a_passphrase_does_not_prompt_for_it(authority: Authority, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as pem

    cert, key = authority.pair("locked.test")
    loaded: Any = pem.load_pem_private_key(Path(key).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.touch(0o600)
    encryption = pem.BestAvailableEncryption(b"secret")
    locked.write_bytes(loaded.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, encryption))
    assert "is not a valid PEM file" in refused("--tls-cert", cert, "--tls-key", str(locked))


async def test_a_connection_without_a_handshake_is_closed(authority: Authority) -> None:
    cert, key = authority.pair(NAME)
    assert server_credentials(cert, key, "")
    environment = {
        "DAGORAMA_BROKER_TLS_CERT": cert, "DAGORAMA_BROKER_TLS_KEY": key, "DAGORAMA_HANDSHAKE_TIMEOUT": "0.3"
    }  # fmt: skip
    with launch_broker(port=0, environment=environment) as broker:
        for said in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"):
            reader, writer = await asyncio.open_connection(broker.host, broker.port)
            writer.write(said)
            async with asyncio.timeout(PATIENCE):
                try:
                    while await reader.read(4096):
                        pass
                except ConnectionResetError:
                    pass
            writer.close()
        assert await outcome(broker, ca=authority) == "OK"
