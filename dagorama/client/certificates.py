"""Certificates and keys of TLS, from the files that the settings name, and the meaning of a failed handshake.

The rule: a file that another user could have written is never trusted.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dagorama.errors import SettingsError
from dagorama.values.private_files import EVERYBODY, WRITERS, check_trust, is_open_to, open_file

if TYPE_CHECKING:
    from dagorama.settings import Settings

#: Permission bits that a key's file must not have: access for all users, or write access for its group.
_PRIVATE = EVERYBODY | WRITERS
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----")
_VERSION, _UTC_TIME = 0xA0, 0x17

#: Parts of gRPC's details of a failed connection, and their meaning.
_MEANINGS = {
    "WRONG_VERSION_NUMBER": "the server does not speak TLS: unset DAGORAMA_TLS_CA, or start the broker with --tls-cert",
    "certificate has expired": "its certificate or its authority's certificate has expired: install a new one there",
    "certificate is not yet valid": "its certificate is not valid yet, or the clock of this machine is wrong",
    "CERTIFICATE_VERIFY_FAILED": "its certificate comes from none of the authorities in DAGORAMA_TLS_CA",
    "Hostname Verification": "its certificate is for another name: set DAGORAMA_TLS_NAME to the certificate's",
    "Socket closed": (
        "the connection was closed: the broker may require TLS (set DAGORAMA_TLS_CA), or a client certificate (set"
        " DAGORAMA_TLS_CERT)"
    ),
}


def meaning(details: str) -> str:
    """Return the meaning of the details of a failed connection; the details themselves if it is unknown."""
    if "failed to connect" not in details:
        return details
    return next((meant for text, meant in _MEANINGS.items() if text in details), details)


def certificates(settings: Settings) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Return authorities, key and certificate, for grpc.ssl_channel_credentials; raise SettingsError."""
    if not settings.tls_ca:
        return None, None, None
    from ssl import PROTOCOL_TLS_CLIENT, SSLContext, SSLError

    context, variable = SSLContext(PROTOCOL_TLS_CLIENT), "DAGORAMA_TLS_CA"
    try:
        _read(settings.tls_ca)  # first, because OpenSSL would wait for a pipe
        context.load_verify_locations(settings.tls_ca)
        ca = _read(settings.tls_ca, WRITERS)
        if not settings.tls_cert:
            return ca, None, None
        variable = "DAGORAMA_TLS_CERT or DAGORAMA_TLS_KEY"
        cert, _ = _read(settings.tls_cert), _read(settings.tls_key)
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=lambda: "")
        check_dates(cert, settings.tls_cert)
        return ca, _read(settings.tls_key, _PRIVATE), cert
    except SSLError:
        raise SettingsError(f"{variable}: not a valid PEM file, or the key does not match the certificate") from None
    except OSError as error:
        raise SettingsError(f"{variable}: the file cannot be read: {error.strerror}") from None


def _read(path: str, refused: int = 0) -> bytes:
    """Read a file; raise SettingsError if it has one of the `refused` permission bits, or belongs to another user."""
    with open_file(path) as file:
        if refused:
            check_trust(file.fileno(), path)
        if is_open_to(refused, file.fileno()):
            raise SettingsError(
                f"{path} holds a private key that other users of this machine may use: chmod 600 {path}"
                if refused == _PRIVATE
                else f"{path} holds trusted certificates, and users other than its owner can write to it: "
                f"chmod go-w {path}"
            )
        return file.read()


# --- when a certificate is valid -----------------------------------------------------------------------


def check_dates(pem: bytes, path: str) -> None:
    """Raise SettingsError if the first certificate of a file has expired or is not valid yet."""
    begins, ends = _validity(pem)
    now = datetime.now(UTC)
    if now > ends:
        raise SettingsError(f"the certificate in {path} expired on {ends:%Y-%m-%d %H:%M} UTC: replace it")
    if now < begins:
        raise SettingsError(
            f"the certificate in {path} is not valid before {begins:%Y-%m-%d %H:%M} UTC: wait until then, or set the"
            " clock of this machine if it is wrong"
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
