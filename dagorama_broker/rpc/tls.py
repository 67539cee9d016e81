"""TLS from files, for the broker's own port and for those who ask a broker something."""

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

#: Bits of a key's file: everybody may use it, or its group may write it.
_PRIVATE = EVERYBODY | WRITERS
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----")
_VERSION, _UTC_TIME = 0xA0, 0x17
#: What gRPC says of a connection that failed, and what it means.
_MEANINGS = {
    "certificate has expired": "its certificate has expired",
    "certificate is not yet valid": "its certificate is not valid yet, or the clock of this machine is wrong",
    "CERTIFICATE_VERIFY_FAILED": "its certificate comes from none of the authorities in DAGORAMA_TLS_CA",
    "Hostname Verification": "its certificate is for another name: DAGORAMA_TLS_NAME",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
}


def server_credentials(cert: str, key: str, client_ca: str) -> grpc.ServerCredentials:
    """With `client_ca`, callers have to present a certificate of that authority. Raises SettingsError."""
    import grpc

    _check(("--tls-cert (DAGORAMA_BROKER_TLS_CERT)", cert), key, ("--tls-client-ca", client_ca))
    pair = _read(key, _PRIVATE), _read(cert)
    check_dates(pair[1], cert)
    return grpc.ssl_server_credentials([pair], _read(client_ca, WRITERS) if client_ca else None, bool(client_ca))


def channel_credentials(ca: str, cert: str, key: str) -> grpc.ChannelCredentials:
    """Raises SettingsError."""
    import grpc

    _check(("DAGORAMA_TLS_CERT", cert), key, ("DAGORAMA_TLS_CA", ca))
    if not cert:
        return grpc.ssl_channel_credentials(_read(ca, WRITERS))
    check_dates(_read(cert), cert)
    return grpc.ssl_channel_credentials(_read(ca, WRITERS), _read(key, _PRIVATE), _read(cert))


def meaning(details: str) -> str:
    """Return what a failed handshake means, if it can be told; else nothing."""
    return next((meant for text, meant in _MEANINGS.items() if text in details), "")


def _check(cert: tuple[str, str], key: str, ca: tuple[str, str]) -> None:
    """OpenSSL says what is wrong with a file; gRPC would only not listen."""
    context, (name, path) = SSLContext(PROTOCOL_TLS_SERVER), ca
    try:
        if path:
            _read(path)  # first: OpenSSL would wait for a pipe
            context.load_verify_locations(path)
        name, path = cert
        if path:
            _read(path)
            _read(key)
            context.load_cert_chain(path, key, password=lambda: "")
    except SSLError:
        pair = f" or its key {key}" if (name, path) == cert else ""
        raise SettingsError(f"{name}: {path}{pair} is not PEM that can be used, or the two are not a pair") from None
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
                f"{path} holds a private key and everybody on this machine may use it: chmod 600 {path}"
                if refused == _PRIVATE
                else f"{path} says whom to trust, and others than its owner may write it: chmod go-w {path}"
            )
        return file.read()


# --- when a certificate is valid -----------------------------------------------------------------------


def check_dates(pem: bytes, path: str) -> None:
    """Raise SettingsError if the first certificate of a file has expired or is not valid yet."""
    begins, ends = _validity(pem)
    now = datetime.now(UTC)
    if now > ends:
        raise SettingsError(f"the certificate in {path} expired on {ends:%Y-%m-%d %H:%M} UTC: put a new one there")
    if now < begins:
        raise SettingsError(
            f"the certificate in {path} is not valid before {begins:%Y-%m-%d %H:%M} UTC: wait for that, or set this"
            " machine's clock if it is wrong"
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
