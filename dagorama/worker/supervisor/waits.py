"""Waits of a supervisor: for a broker that does not answer, for a change, and for the end of an idle worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc.aio

from dagorama.api import broker_pb2 as pb
from dagorama.client.addresses import address
from dagorama.client.certificates import meaning
from dagorama.client.reachability import trouble_at_addresses
from dagorama.logging import get_logger

if TYPE_CHECKING:
    from dagorama.api.broker_pb2_grpc import BrokerAsyncStub
    from dagorama.settings import Settings

NO_BROKER_WARNING_S = 3.0  #: time without a broker after which the worker logs a warning
PROBE_TIMEOUT_S = 1.0  #: time to find out why there is no connection
#: Looks at an idle worker within its idle time, and the bounds of the seconds between two looks.
LOOKS, SHORTEST_LOOK_S, LONGEST_LOOK_S = 8, 0.05, 5.0


class SilentBroker:
    """Finds out why a broker does not answer, and says so."""

    def __init__(self, stub: BrokerAsyncStub, settings: Settings) -> None:
        self._stub = stub
        self._settings = settings
        self._address = address(settings)
        self._trouble = ""  # why there is no connection, if that is known

    @property
    def text(self) -> str:
        """A clause that says that no broker answers, and why if that is known."""
        return f"no broker answers at {self._address}{self._trouble}"

    async def warn(self, is_silent: Callable[[], bool]) -> None:
        """Log why the broker is silent, if it is for a while: a call that does not wait fails with the reason."""
        await asyncio.sleep(NO_BROKER_WARNING_S)
        if not is_silent():
            return
        try:
            await self._stub.GetStatus(pb.GetStatusRequest(), timeout=PROBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            meant = meaning(details)
            if meant == details:
                meant = await asyncio.to_thread(trouble_at_addresses, self._settings)
            self._trouble = f" ({meant})" if meant else ""
        get_logger().warning("no broker answers at %s yet%s; retrying", self._address, self._trouble)


class Change(asyncio.Event):
    """An event that is set with every change of the worker."""

    async def until(self, condition: Callable[[], bool], seconds: float | None) -> None:
        """Wait until the condition holds, for at most `seconds`; None: without a limit."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    self.clear()
                    await self.wait()


async def idle_for(seconds: float, activity: Callable[[], int | None]) -> None:
    """Return when a worker has been idle for this many seconds, or up to an eighth of them longer.

    `activity` returns a count that rises with each node that has run; None: the worker is not idle.
    """
    loop = asyncio.get_running_loop()
    look = min(max(seconds / LOOKS, SHORTEST_LOOK_S), LONGEST_LOOK_S)
    since, before = loop.time(), activity()
    while before is None or loop.time() - since < seconds:
        await asyncio.sleep(look)
        now = activity()
        if now is None or now != before:
            since = loop.time()
        before = now
