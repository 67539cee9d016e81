"""Authentication: the tokens that are valid now, and the streams that end with them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

from dagorama_broker.errors import SettingsError, Unauthenticated, Unavailable
from dagorama_broker.rpc.permissions import ORIGINAL, check_role
from dagorama_broker.rpc.tokens import Token, matching, read_tokens

log = logging.getLogger("dagorama_broker")

#: Seconds between two checks whether the file of tokens has changed; and for which a changed one must stay the same
#: before it is read, because a program that writes it in place empties it first.
LOOK, SETTLE = 0.7, 0.2


class TokenRegistry:
    """The tokens that are valid now, and the streams that were opened with them."""

    def __init__(self, path: Path) -> None:
        """Read the file of tokens. Raise SettingsError if it cannot be used."""
        self._path = path
        self._read_at = self._state()
        self._tokens = read_tokens(path)
        self._open: dict[Token, set[asyncio.Timeout]] = {}

    def __str__(self) -> str:
        return f"{len(self._tokens)} tokens from {self._path}"

    # --- calls ----------------------------------------------------------------------------------------

    def authenticate(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Token:
        """Return the token of a call. Raise Unauthenticated or PermissionDenied."""
        if method.startswith(ORIGINAL):
            raise Unauthenticated("the calls of dagorama 0.1.10 carry no token, and this broker requires one")
        token = self._token(metadata)
        check_role(token, method)
        return token

    def authenticate_request(self, method: str, text: str | None) -> Token:
        """Return the token of a call that carries it in its request. Raise Unauthenticated or PermissionDenied."""
        if text is None:
            raise Unauthenticated(
                "this broker requires a token: set tokenFromEnv of the trigger to the name of a variable"
                " that holds one in the first container of the scaled pod"
            )
        token = self._valid(text.encode())
        check_role(token, method)
        return token

    def _token(self, metadata: Iterable[tuple[str, str | bytes]]) -> Token:
        given = next((value for key, value in metadata if key == "authorization"), None)
        if given is None:
            raise Unauthenticated("this broker requires a token: set DAGORAMA_AUTH_TOKEN")
        scheme, _, text = (given if isinstance(given, bytes) else given.encode()).partition(b" ")
        return self._valid(text.strip() if scheme.lower() == b"bearer" else None)

    def _valid(self, text: bytes | None) -> Token:
        token = None if text is None else matching(self._tokens, text)
        if token is None:
            raise Unauthenticated("unknown token: it was issued for another broker, or revoked")
        if token.expires is not None and token.expires <= time.time():
            raise Unauthenticated(f"the token {token.name!r} has expired")
        return token

    @asynccontextmanager
    async def until_revoked(self, token: Token) -> AsyncIterator[None]:
        """Run a stream in the block for as long as its token is valid.

        Then raise Unavailable: the client may open the stream again with another token.
        """
        left = None if token.expires is None else token.expires - time.time()
        streams = self._open.setdefault(token, set())
        timeout = asyncio.timeout(left)
        try:
            async with timeout:
                streams.add(timeout)
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise Unavailable(f"the token {token.name!r} has expired or was changed: call again") from None
        finally:
            streams.discard(timeout)
            if not streams and self._open.get(token) is streams:
                del self._open[token]

    # --- the file -------------------------------------------------------------------------------------

    async def watch(self) -> NoReturn:
        """Read the file again whenever it has changed, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            if self._state() != self._read_at:
                await self._settled()
                self.read_again()

    async def _settled(self) -> None:
        found = None
        while found != (found := self._state()):
            await asyncio.sleep(SETTLE)

    def read_again(self) -> None:
        """Read the file, and end the streams of tokens that were removed from it or changed.

        If the file cannot be used, log that and change nothing.
        """
        self._read_at = self._state()
        try:
            tokens = read_tokens(self._path)
            if not tokens and not self._path.stat().st_size:  # a full disk may leave an empty file
                raise SettingsError(f"{self._path} is empty (to revoke all tokens, write a comment into it)")
        except (SettingsError, OSError) as error:
            log.error("%s; the tokens that were read before stay valid", error)
            return
        self._tokens = tokens
        now = asyncio.get_running_loop().time()
        for gone in self._open.keys() - set(tokens):
            for timeout in self._open.pop(gone):
                if not timeout.expired():
                    timeout.reschedule(now)
        log.info("%s", self)

    def _state(self) -> object:
        try:
            status = self._path.stat()
        except OSError as error:
            return error.errno
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode
