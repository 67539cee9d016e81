"""Takes what workers report of cached values, and answers the calls that list and clear them."""

from __future__ import annotations

import logging

from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.model.actions import ActionKind, ActionRow
from dagorama_broker.rpc.fields import check_cache_key, check_name
from dagorama_broker.rpc.permissions import caller_name
from dagorama_broker.scheduler import Worker

log = logging.getLogger("dagorama_broker")

#: Functions that a reply lists.
MOST_LISTED = 10_000
#: Bytes of the proof of a cached value.
LONGEST_PROOF = 128
#: No nodes.
NONE: frozenset[int] = frozenset()


def take_cached(broker: Broker, worker: Worker, results: pb.Results) -> frozenset[int]:
    """Note the cache keys of values, before these are taken; return the places of values that were found.

    Raises InvalidArgument, which ends the session, if the columns do not fit together.
    """
    count = len(results.node)
    if not len(results.cached) == len(results.cache_key) == len(results.cache_proof):
        raise InvalidArgument("the columns of a report have different lengths")
    if len(results.attempt) != count or any(place >= count for place in (*results.cached, *results.hits)):
        raise InvalidArgument("a report's cached values name nodes that it does not have")
    for place, key, proof in zip(results.cached, results.cache_key, results.cache_proof, strict=True):
        if not 0 < len(proof) <= LONGEST_PROOF:
            raise InvalidArgument(
                f"the proof of a cached value has {len(proof)} bytes; at most {LONGEST_PROOF} are allowed"
            )
        broker.scheduler.computed(worker, results.node[place], results.attempt[place], check_cache_key(key), proof)
    return frozenset(results.hits)


def look_up(broker: Broker, worker: Worker, returned: pb.Return) -> None:
    """Take nodes back whose cache keys a worker has computed. Raises InvalidArgument, which ends the session."""
    if len(returned.cache_key) != len(returned.node):
        raise InvalidArgument("the columns of a return have different lengths")
    broker.see_time()
    for node, attempt, key in zip(returned.node, returned.attempt, returned.cache_key, strict=True):
        broker.scheduler.look_up(worker, node, attempt, check_cache_key(key))


def list_cache(broker: Broker) -> pb.ListCacheReply:
    """Return the functions that have cached values."""
    scheduler = broker.scheduler
    counts = sorted(scheduler.cached_counts().items())[:MOST_LISTED]
    return pb.ListCacheReply(
        functions=[pb.CachedFunction(function=name, **count._asdict()) for name, count in counts],
        hits=scheduler.cache_hits,
        misses=scheduler.cache_misses,
    )


async def clear_cache(broker: Broker, function: str) -> pb.ClearCacheReply:
    """Forget the cached values of a function; return when that is durable. Raises InvalidArgument."""
    check_name(function, "the name of a function", least=1)
    broker.see_time()
    values, by = broker.scheduler.clear_cache(function), caller_name()
    if values:
        broker.scheduler.record_action(ActionRow(ActionKind.CLEAR_CACHE, by, target=function, nodes=values))
        log.info("%d cached values of %s were forgotten%s", values, function, f" by {by}" if by else "")
    broker.commits.mark_changed()
    await broker.commits.wait_durable()
    return pb.ClearCacheReply(values=values)
