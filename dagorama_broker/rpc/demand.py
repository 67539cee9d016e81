"""Replies to Demand and WatchDemand: how many slots a pool of workers needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import Role
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.commits import CALL_AGAIN
from dagorama_broker.errors import InvalidArgument, Unavailable
from dagorama_broker.rpc.fields import check_names, check_worker_keys
from dagorama_broker.rpc.following import hearing_of_leave, pause
from dagorama_broker.rpc.permissions import restrict
from dagorama_broker.rpc.tokens import Token
from dagorama_broker.scheduler import HORIZON, Demand, DemandLook, DemandQuery, WorkerInfo

#: Seconds from one reply to the next.
INTERVAL = 0.5
#: After an answer, watchers wait for this many times what all answers take: they get a fiftieth of the loop.
RESPITE = 50
#: The shortest and the longest horizon in seconds.
SHORTEST, LONGEST = 0.001, 86_400.0


class DemandReader:
    """Answers for pools; looks at the workers and queues at most once in a while for all who watch."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._watchers = 0
        self._look: DemandLook | None = None
        self._looked_at = 0.0

    def read(self, query: DemandQuery) -> Demand:
        """Return the demand of a pool now."""
        return self._fresh_look().demand(query)

    async def watch(self, query: DemandQuery) -> AsyncGenerator[Demand, None]:
        """Yield the demand of a pool now, and whenever it has changed."""
        told: Demand | None = None
        async with aclosing(self.looks(query)) as looks:
            async for found in looks:
                if told is None or found._replace(oldest_ready=told.oldest_ready) != told:
                    told = found
                    yield found

    async def looks(self, query: DemandQuery) -> AsyncGenerator[Demand, None]:
        """Yield the demand of a pool about every `INTERVAL` seconds. Raises Unavailable when the broker leaves."""
        loop = asyncio.get_running_loop()
        with hearing_of_leave(self._broker) as leaving, self._watching():
            while not self._broker.is_leaving:
                began = loop.time()
                found = self._shared_look().demand(query)
                took = loop.time() - began
                yield found
                await pause(max(INTERVAL, RESPITE * self._watchers * took), leaving)
        raise Unavailable(CALL_AGAIN)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._look = None

    def _fresh_look(self) -> DemandLook:
        self._broker.see_time()
        return self._broker.scheduler.demand(self._broker.series.ages)

    def _shared_look(self) -> DemandLook:
        """Return a look at the scheduler that is at most half an interval old."""
        now = asyncio.get_running_loop().time()
        if self._look is None or now - self._looked_at >= INTERVAL / 2:
            self._look, self._looked_at = self._fresh_look(), now
        return self._look


def demand_query(request: pb.DemandRequest, token: Token | None) -> DemandQuery:
    """Return what is asked for, restricted to what the caller's token allows.

    Raises InvalidArgument, or PermissionDenied if a worker's token does not allow the queues or tolerations.
    """
    check_names((*request.include_queues, *request.exclude_queues, *request.tolerations))
    check_worker_keys(request.key_ids)
    horizon, share = request.horizon or HORIZON, request.share or 1.0
    if not SHORTEST <= horizon <= LONGEST:
        raise InvalidArgument(f"a horizon of {horizon:g} seconds; {SHORTEST:g} to {LONGEST:g} are allowed")
    if not 0.0 < share <= 1.0:
        raise InvalidArgument(f"a share of {share:g}; more than 0 and at most 1 is allowed")
    pool = WorkerInfo(
        bytes(16),
        "",
        include_queues=frozenset(request.include_queues),
        exclude_queues=frozenset(request.exclude_queues),
        tolerations=frozenset(request.tolerations),
        key_ids=frozenset(id.hex() for id in request.key_ids),
    )
    pool = restrict(pool, token)
    if token is None or token.role is not Role.WORKER:
        pool = replace(pool, owner="")  # a person asks for all pools with these options
    return DemandQuery(pool, horizon, share)


def demand_message(demand: Demand) -> pb.DemandReply:
    """Return a demand as a message."""
    return pb.DemandReply(**demand._asdict())
