"""Channels to the broker, sync and aio, with the TLS and the token of the settings. No other module makes one.

The rule: a token is sent over TLS, or to this machine, or not at all. No error, log or repr contains it.
"""

from __future__ import annotations

import os
import queue
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, cast

from dagorama.api.contract import MESSAGE_LIMIT
from dagorama.client.addresses import address, hosts_elsewhere, target
from dagorama.client.certificates import certificates
from dagorama.errors import SettingsError
from dagorama.logging import get_logger
from dagorama.values.private_files import OTHERS, check_trust, is_open_to, open_file

if TYPE_CHECKING:
    import grpc
    import grpc.aio

    from dagorama.settings import Settings

#: The largest number of characters of a token.
LONGEST_TOKEN = 4096


def quieten_grpc() -> None:
    """Keep grpc from printing a line when a broker stops or closes an idle connection.

    Call this before grpc is imported for the first time: it has no effect later.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def channel_options() -> list[tuple[str, Any]]:
    """Return the options of all our channels: bounded messages, detection of silent peers, fast reconnects."""
    return [
        ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        # A silent broker is left after eight seconds, so that calls move to the one that takes over. The first limit is
        # used for TCP too, and notices a machine that is gone; only the second one notices a process that is stopped.
        ("grpc.keepalive_time_ms", 5_000),
        ("grpc.keepalive_timeout_ms", 3_000),
        ("grpc.http2.ping_timeout_ms", 3_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # This is also the time limit of a connection attempt.
        ("grpc.min_reconnect_backoff_ms", 2_000),
        # By default a name is looked up twice a minute at most, which hides the new address of a replaced broker.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ]


def sync_channel(settings: Settings) -> grpc.Channel:
    """Return a channel.

    Raises SettingsError if a file is invalid, or if the token would be sent in clear text, and BrokerUnavailable if the
    names of several hosts cannot be looked up.
    """
    quieten_grpc()
    import grpc

    _work_under_patches()
    return cast("grpc.Channel", _made(settings, grpc.secure_channel, grpc.insecure_channel))


def aio_channel(settings: Settings) -> grpc.aio.Channel:
    """Return a channel for the running event loop; raise the errors of `sync_channel`."""
    quieten_grpc()
    import grpc.aio

    return cast("grpc.aio.Channel", _made(settings, grpc.aio.secure_channel, grpc.aio.insecure_channel))


@cache
def _work_under_patches() -> None:
    """Run gRPC on the loop of gevent if gevent has patched the sockets: otherwise its first call would never return.

    Raises SettingsError if gRPC cannot work with the patches of this process.
    """
    eventlet, gevent = sys.modules.get("eventlet.patcher"), sys.modules.get("gevent.monkey")
    if eventlet is not None and eventlet.is_monkey_patched("socket"):
        raise SettingsError(
            "eventlet has patched the sockets of this process, and gRPC cannot run on its loop: call dagorama in a"
            " process of its own, or use gevent, threads or asyncio"
        )
    if gevent is None or not gevent.is_module_patched("socket"):
        return
    if queue.SimpleQueue is not SimpleQueue:
        raise SettingsError(
            "gevent has patched this process after dagorama was imported, so waits of dagorama would block all"
            " greenlets: call gevent.monkey.patch_all() before anything else is imported"
        )
    from grpc.experimental.gevent import init_gevent

    init_gevent()


def check(settings: Settings) -> None:
    """Raise SettingsError if no channel can be made with these settings; do not load grpc."""
    Token.of(settings)
    certificates(settings)


def _made(settings: Settings, secure: Callable[..., Any], insecure: Callable[..., Any]) -> object:
    token, options, where = Token.of(settings), channel_options(), target(settings)
    if len(settings.hosts) > 1 or not hosts_elsewhere(settings):
        # Traffic for this machine must not pass through another one, and a proxy can be asked for one address only.
        options.append(("grpc.enable_http_proxy", 0))
    if settings.tls_ca:
        import grpc

        if settings.tls_name:
            options.append(("grpc.ssl_target_name_override", settings.tls_name))
        channel = secure(where, grpc.ssl_channel_credentials(*certificates(settings)), options=options)
    else:
        if len(settings.hosts) > 1:  # by default all addresses together would be the authority, which is no valid one
            options.append(("grpc.default_authority", address(replace(settings, host=settings.hosts[0]))))
        channel = insecure(where, options=options)
    return channel if token is None else _Bearing(channel, token)


# --- the token ---------------------------------------------------------------------------------------


class Token:
    """The token of this process. Its file is read again after a change, so that a token can be replaced."""

    def __init__(self, text: str, path: Path | None = None) -> None:
        self._path = path
        self._state: object = None
        self._header = ("authorization", "")
        if path is None:
            self._take(text, "DAGORAMA_AUTH_TOKEN")
        else:
            self._read(path)

    @classmethod
    def of(cls, settings: Settings) -> Token | None:
        """Return the token of the settings, or None; raise SettingsError if it cannot be read or must not be sent."""
        if not (settings.auth_token or settings.auth_token_file):
            return None
        if not settings.tls_ca and (elsewhere := hosts_elsewhere(settings)):
            raise SettingsError(
                f"the token would be sent to {', '.join(elsewhere)} in clear text: set DAGORAMA_TLS_CA to the authority"
                " of the broker's certificate, or unset DAGORAMA_AUTH_TOKEN"
            )
        return cls(settings.auth_token, Path(settings.auth_token_file) if settings.auth_token_file else None)

    def header(self) -> tuple[str, str]:
        """Return the token as metadata of a call."""
        if self._path is not None:
            try:
                self._read(self._path)
            except SettingsError as error:
                get_logger().warning("%s; the previous token of this file is still used", error)
        return self._header

    def _read(self, path: Path) -> None:
        try:
            with open_file(path) as file:
                status = os.fstat(file.fileno())
                state = status.st_mtime_ns, status.st_size, status.st_ino, status.st_uid, status.st_mode
                if state == self._state:
                    return
                check_trust(file.fileno(), path)
                if is_open_to(OTHERS, file.fileno()):
                    raise SettingsError(
                        f"{path} holds a token, and users other than its owner can use it (mode"
                        f" {status.st_mode & 0o777:o}): chmod 600 {path}, and create a new token if"
                        " someone may have read it"
                    )
                self._take(file.read(LONGEST_TOKEN + 2).decode("ascii", "replace"), str(path))
                self._state = state
        except OSError as error:
            raise SettingsError(f"the token in {path} cannot be read: {error.strerror}") from None

    def _take(self, text: str, source: str) -> None:
        token = text.strip()
        if not re.fullmatch(f"[!-~]{{1,{LONGEST_TOKEN}}}", token):
            raise SettingsError(f"{source} does not hold a token: `dagorama tokens new` creates one")
        self._header = "authorization", f"Bearer {token}"


class _Bearing:
    """A channel that adds the token to each call, without the cost of an interceptor; it has the methods for stubs."""

    def __init__(self, channel: Any, token: Token) -> None:
        self._channel = channel
        self._token = token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def unary_unary(self, *method: Any, **how: Any) -> Callable[..., Any]:
        return self._with_token(self._channel.unary_unary(*method, **how))

    def unary_stream(self, *method: Any, **how: Any) -> Callable[..., Any]:
        return self._with_token(self._channel.unary_stream(*method, **how))

    def stream_unary(self, *method: Any, **how: Any) -> Callable[..., Any]:
        return self._with_token(self._channel.stream_unary(*method, **how))

    def stream_stream(self, *method: Any, **how: Any) -> Callable[..., Any]:
        return self._with_token(self._channel.stream_stream(*method, **how))

    def _with_token(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(*arguments: Any, **options: Any) -> Any:
            return call(*arguments, metadata=(self._token.header(),), **options)

        return calling
