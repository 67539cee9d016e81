"""TLS from files, for the broker's own port and for those who ask a broker something."""

from __future__ import annotations

from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext, SSLError
from typing import TYPE_CHECKING

from dagorama_broker.errors import SettingsError
from dagorama_broker.secrecy import EVERYBODY, is_open_to

if TYPE_CHECKING:
    import grpc


def server_credentials(cert: str, key: str, client_ca: str) -> grpc.ServerCredentials:
    """With `client_ca`, callers have to present a certificate of that authority. Raises SettingsError."""
    import grpc

    _check(("--tls-cert (DAGORAMA_BROKER_TLS_CERT)", cert), key, ("--tls-client-ca", client_ca))
    pair = _read(key), _read(cert)
    return grpc.ssl_server_credentials([pair], _read(client_ca) if client_ca else None, bool(client_ca))


def channel_credentials(ca: str, cert: str, key: str) -> grpc.ChannelCredentials:
    """Raises SettingsError."""
    import grpc

    _check(("DAGORAMA_TLS_CERT", cert), key, ("DAGORAMA_TLS_CA", ca))
    return grpc.ssl_channel_credentials(_read(ca), _read(key) if key else None, _read(cert) if cert else None)


def _check(cert: tuple[str, str], key: str, ca: tuple[str, str]) -> None:
    """OpenSSL says what is wrong with a file; gRPC would only not listen."""
    context, (name, path) = SSLContext(PROTOCOL_TLS_SERVER), ca
    try:
        if path:
            context.load_verify_locations(path)
        name, path = cert
        if path:
            context.load_cert_chain(path, key, password=lambda: "")
            _check_private(key)
    except SSLError:
        pair = f" or its key {key}" if (name, path) == cert else ""
        raise SettingsError(f"{name}: {path}{pair} is not PEM that can be used, or the two are not a pair") from None
    except OSError as error:
        pair = f" or {key}" if (name, path) == cert else ""
        raise SettingsError(f"{name}: {path}{pair} cannot be read: {error.strerror}") from None


def _check_private(key: str) -> None:
    if is_open_to(EVERYBODY, key):
        raise SettingsError(f"{key} holds a private key and everybody on this machine may use it: chmod 600 {key}")


def _read(path: str) -> bytes:
    return Path(path).read_bytes()
