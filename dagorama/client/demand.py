"""Follow how many slots a pool of workers needs, across restarts of the broker and a standby that takes over."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

from dagorama.api import broker_pb2
from dagorama.errors import BrokerError, BrokerOverloaded, BrokerUnavailable

if TYPE_CHECKING:
    from dagorama.client.connection import Connection

#: Seconds before the first new attempt to reach a broker; they are doubled each time, up to the longest.
PAUSE, LONGEST_PAUSE = 0.1, 2.0


class Demand(NamedTuple):
    """The slots that a pool of workers needs, with the counts behind them. A slot is one child process of a worker."""

    slots: int  #: slots that are needed: `running_slots`, and some for the ready nodes
    running: int = 0  #: nodes that workers of the pool hold and have started
    running_slots: int = 0  #: slots in which these run
    leaving_slots: int = 0  #: of these, slots of workers that are granted nothing more
    ready: int = 0  #: nodes that a worker of the pool would be granted, now or within 30 seconds
    connected: int = 0  #: workers of the pool
    busy: int = 0  #: of these, workers that hold a node
    leaving: int = 0  #: of these, workers that are granted nothing more
    unservable: int = 0  #: nodes that the pool may run, except that its workers have returned them
    missing_key: int = 0  #: nodes that the pool may not run only because it lacks a signing key


class BrokerAway(NamedTuple):
    """No broker answers; the previous demand is the latest that is known."""

    why: str


class DemandWatch:
    """The demand of a pool: iterate over it. One thread iterates, and any thread may close it."""

    def __init__(self, broker: Connection, request: broker_pb2.DemandRequest) -> None:
        self._broker = broker
        self._request = request
        self._call: Any = None
        self._closed = Event()

    def __iter__(self) -> Iterator[Demand | BrokerAway]:
        """Yield the demand now and whenever it has changed, and once a `BrokerAway` while no broker answers.

        It goes on until it is closed. Raises BrokerError if the broker refuses the request, for example because the
        token does not allow it.
        """
        import grpc

        pause, is_away = PAUSE, False
        while not self._closed.is_set():
            try:
                for reply in self._replies():
                    pause, is_away = PAUSE, False
                    yield _demand(reply)
            except grpc.RpcError as error:
                if self._closed.is_set():
                    return
                why = self._temporary(error)
                if not is_away:
                    is_away = True
                    yield BrokerAway(why)
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def close(self) -> None:
        """End the iteration, also one that waits in another thread."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def _replies(self) -> Iterator[broker_pb2.DemandReply]:
        self._call = self._broker.stub.WatchDemand(self._request)
        if self._closed.is_set():  # before the call could be seen
            self._call.cancel()
        try:
            yield from self._call
        finally:
            self._call.cancel()

    def _temporary(self, error: Any) -> str:
        """Return the text of an error that will pass; raise ours for another one."""
        failure: BrokerError = self._broker.error_of(error)
        if isinstance(failure, BrokerUnavailable | BrokerOverloaded):
            return str(failure)
        if failure.status == "UNIMPLEMENTED":
            raise BrokerError(
                f"the broker at {self._broker.address} is too old to report the demand: upgrade it", failure.status
            ) from None
        raise failure from None


def _demand(reply: broker_pb2.DemandReply) -> Demand:
    return Demand(**{name: getattr(reply, name) for name in Demand._fields})
