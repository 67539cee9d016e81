"""Follow a stream of the broker with `for` or `async for`, across restarts of the broker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dagorama.client.connection import Connection
from dagorama.client.worker_thread import in_thread
from dagorama.errors import BrokerOverloaded, BrokerUnavailable

if TYPE_CHECKING:
    import grpc

T = TypeVar("T")


class Following(ABC, Generic[T]):
    """A call of the broker that streams replies about an instance; it is made again after a restart."""

    def __init__(self, broker: Connection, instance: bytes) -> None:
        self._broker = broker
        self._instance = instance
        self._call: Any = None
        self._is_closed = False

    @abstractmethod
    def _opened(self) -> Any:
        """Make the call."""

    @abstractmethod
    def _items(self, call: Any) -> Generator[T, None, bool]:
        """Yield what the replies say. Return whether it was the end, or the call must be made again."""

    def __iter__(self) -> Iterator[T]:
        import grpc

        while not self._is_closed:
            self._call = self._opened()
            try:
                if (yield from self._items(self._call)):
                    return
            except grpc.RpcError as error:
                if self._is_closed:
                    return
                self._check(error)
            finally:
                self._call.cancel()
            self._broker.get_instance(self._instance)  # waits until the broker answers, or raises

    def _check(self, error: grpc.RpcError) -> None:
        """Raise our error unless it is a temporary one."""
        failure = self._broker.error_of(error)
        if not isinstance(failure, BrokerUnavailable | BrokerOverloaded):
            raise failure from None

    async def __aiter__(self) -> AsyncIterator[T]:
        steps = iter(self)

        def step() -> T | None:
            return next(steps, None)

        try:
            while (item := await in_thread(step)) is not None:
                yield item
        finally:
            self.close()

    def close(self) -> None:
        """End the iteration, also one that waits in another thread."""
        self._is_closed = True
        if self._call is not None:
            self._call.cancel()
