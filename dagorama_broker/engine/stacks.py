"""Asks workers for the stacks of running nodes, and hands their answers to the callers who wait for them."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from dagorama_broker.engine.worker_session import Session
from dagorama_broker.errors import FailedPrecondition, Unavailable
from dagorama_broker.scheduler import Worker

#: Seconds that a worker has to answer.
PATIENCE = 10.0


class StackAnswer(NamedTuple):
    """The answer of a worker: a stack, or a problem."""

    stack: str
    note: str
    problem: str


class Stacks:
    """The questions that are open."""

    def __init__(self) -> None:
        self._last = 0
        self._open: dict[int, tuple[Worker, asyncio.Future[StackAnswer]]] = {}

    async def ask(self, session: Session, attempt: int) -> StackAnswer:
        """Return where an attempt stands. Raises Unavailable or FailedPrecondition."""
        self._last += 1
        number = self._last
        future: asyncio.Future[StackAnswer] = asyncio.get_running_loop().create_future()
        self._open[number] = session.worker, future
        session.news.stacks.append((number, attempt))
        session.wake()
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await future
        except TimeoutError:
            name = session.worker.info.name
            raise Unavailable(f"the worker {name!r} has not answered within {PATIENCE:g} seconds") from None
        finally:
            del self._open[number]
        if answer.problem:
            raise FailedPrecondition(answer.problem)
        return answer

    def answer(self, worker: Worker, number: int, answer: StackAnswer) -> None:
        """Take the answer of a worker; a late one is ignored."""
        asked, future = self._open.get(number, (None, None))
        if future is not None and asked is worker and not future.done():
            future.set_result(answer)

    def lose(self, worker: Worker) -> None:
        """End the questions to a worker whose session has ended."""
        for asked, future in self._open.values():
            if asked is worker and not future.done():
                future.set_exception(Unavailable(f"the worker {worker.info.name!r} was lost before it answered"))
