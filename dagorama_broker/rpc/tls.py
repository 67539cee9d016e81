"""TLS credentials from files, for the broker's port and for health checks of a broker."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from ssl import PROTOCOL_TLS_SERVER, SSLContext, SSLError
from typing import TYPE_CHECKING

from dagorama_broker.errors import SettingsError
from dagorama_broker.rpc.private_files import EVERYBODY, WRITERS, check_trust, is_open_to, open_file

if TYPE_CHECKING:
    import grpc

#: Permission bits that a file with a key must not have: everyone may use it, or its group may write it.
_PRIVATE = EVERYBODY | WRITERS
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----")
_VERSION, _UTC_TIME = 0xA0, 0x17
#: Parts of gRPC's error messages for failed connections, and what they mean.
_MEANINGS = {
    "certificate has expired": "its certificate has expired",
    "certificate is not yet valid": "its certificate is not valid yet, or this machine's clock is wrong",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not signed by an authority in DAGORAMA_TLS_CA",
    "Hostname Verification": "its certificate is for another name (set DAGORAMA_TLS_NAME)",
    "WRONG_VERSION_NUMBER": "it does not use TLS",
}


def server_credentials(cert: str, key: str, client_ca: str) -> grpc.ServerCredentials:
    """Return the credentials of the broker's port; `client_ca` makes client certificates mandatory.

    Raise SettingsError if a file cannot be used.
    """
    import grpc

    _check(("--tls-cert (DAGORAMA_BROKER_TLS_CERT)", cert), key, ("--tls-client-ca", client_ca))
    pair = _read(key, _PRIVATE), _read(cert)
    check_dates(pair[1], cert)
    return grpc.ssl_server_credentials([pair], _read(client_ca, WRITERS) if client_ca else None, bool(client_ca))


def channel_credentials(ca: str, cert: str, key: str) -> grpc.ChannelCredentials:
    """Return the credentials of a connection to a broker. Raise SettingsError if a file cannot be used."""
    import grpc

    _check(("DAGORAMA_TLS_CERT", cert), key, ("DAGORAMA_TLS_CA", ca))
    if not cert:
        return grpc.ssl_channel_credentials(_read(ca, WRITERS))
    check_dates(_read(cert), cert)
    return grpc.ssl_channel_credentials(_read(ca, WRITERS), _read(key, _PRIVATE), _read(cert))


def meaning(details: str) -> str:
    """Return what gRPC's message about a failed handshake means; an empty text if that is unknown."""
    return next((meant for text, meant in _MEANINGS.items() if text in details), "")


def _check(cert: tuple[str, str], key: str, ca: tuple[str, str]) -> None:
    """Raise SettingsError if a file cannot be used: unlike gRPC, OpenSSL says why."""
    context, (name, path) = SSLContext(PROTOCOL_TLS_SERVER), ca
    try:
        if path:
            _read(path)  # first: OpenSSL would wait for the writer of a pipe
            context.load_verify_locations(path)
        name, path = cert
        if path:
            _read(path)
            _read(key)
            context.load_cert_chain(path, key, password=lambda: "")
    except SSLError:
        pair = f" or its key {key}" if (name, path) == cert else ""
        raise SettingsError(
            f"{name}: {path}{pair} is not a valid PEM file, or the key does not match the certificate"
        ) from None
    except OSError as error:
        pair = f" or {key}" if (name, path) == cert else ""
        raise SettingsError(f"{name}: {path}{pair} cannot be read: {error.strerror}") from None


def _read(path: str, refused: int = 0) -> bytes:
    """Read a file; raise SettingsError if it is open to `refused`, permission bits, or another user's."""
    with open_file(path) as file:
        if refused:
            check_trust(file.fileno(), path)
        if is_open_to(refused, file.fileno()):
            raise SettingsError(
                f"{path} contains a private key, and every user of this machine may use it: chmod 600 {path}"
                if refused == _PRIVATE
                else f"{path} lists whom to trust, and users other than its owner can write to it: chmod go-w {path}"
            )
        return file.read()


# --- the dates of a certificate ------------------------------------------------------------------------


def check_dates(pem: bytes, path: str) -> None:
    """Raise SettingsError if the first certificate of a file has expired or is not valid yet."""
    begins, ends = _validity(pem)
    now = datetime.now(UTC)
    if now > ends:
        raise SettingsError(f"the certificate in {path} expired on {ends:%Y-%m-%d %H:%M} UTC: replace it")
    if now < begins:
        raise SettingsError(
            f"the certificate in {path} is not valid before {begins:%Y-%m-%d %H:%M} UTC: wait, or correct the clock of"
            " this machine"
        )


def _validity(pem: bytes) -> tuple[datetime, datetime]:
    found = _PEM.search(pem)
    assert found is not None, "OpenSSL has read it"
    (_, certificate), *_ = _elements(b64decode(found[1]))
    (_, signed), *_ = _elements(certificate)
    # Version (optional), serial number, algorithm, issuer, validity: RFC 5280, section 4.1.
    fields = [content for tag, content in _elements(signed) if tag != _VERSION]
    begins, ends = (_time(tag, content) for tag, content in _elements(fields[3]))
    return begins, ends


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each DER element."""
    while data:
        tag, size, start = data[0], data[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[2:start], "big")
        yield tag, data[start : start + size]
        data = data[start + size :]


def _time(tag: int, content: bytes) -> datetime:
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(content.decode(), form).replace(tzinfo=UTC)
