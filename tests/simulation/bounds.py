"""Small bounds: what takes many nodes or much memory in a real broker takes few in half of the simulated lives."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from unittest.mock import patch

from dagorama_broker.engine import ahead, argument_cache, drafts, functions, payload_cache, used_ids
from dagorama_broker.rpc import grants, reports, request_stream, wait, wait_messages, work_messages
from dagorama_broker.scheduler import assignment, endings, gates, graph, rates, submission
from dagorama_broker.scheduler import drafts as scheduler_drafts

#: Modules with bounds, the names of these, and the values that they may have.
BOUNDS: list[tuple[ModuleType, str, tuple[int, ...]]] = [
    (ahead, "MOST_SOURCES", (0, 1)),
    (argument_cache, "LARGEST", (0, 4)),
    (argument_cache, "LEAST", (1,)),
    (assignment, "LOOKED_AT", (1,)),
    (assignment, "MANY", (1,)),
    (assignment, "MOST_JOINED", (1, 2)),
    (drafts, "LOOKED_UP", (1,)),
    (drafts, "TURN", (1, 3)),
    (endings, "LAST_FAILURES", (1,)),
    (functions, "AT_A_TIME", (1,)),
    (functions, "MANY", (1,)),
    (functions, "UNCOMMITTED", (1,)),
    (gates, "SPANS", (2,)),
    (graph, "LOOKED_AT", (1,)),
    (grants, "MESSAGE_TARGET", (64, 300)),
    (payload_cache, "LARGEST_RECENT", (0, 8)),
    (payload_cache, "MOST_RECENT", (0, 1, 2)),
    (payload_cache, "READ_BATCH", (1, 2)),
    (payload_cache, "RECENT_BYTES", (0, 20)),
    (rates, "MOST_KEYS", (1,)),
    (reports, "TOGETHER", (1,)),
    (request_stream, "MESSAGE_TARGET", (1, 100)),
    (scheduler_drafts, "PORTION", (1, 2)),
    (submission, "PORTION", (1, 2)),
    (used_ids, "MOST_NEAR", (1, 10)),
    (wait, "AT_A_TIME", (1, 2)),
    (wait, "AT_ONCE", (0, 8)),
    (wait_messages, "FEW", (1,)),
    (wait_messages, "MESSAGE_TARGET", (1, 100)),
    (wait_messages, "READ", (1, 20)),
    (work_messages, "AT_HAND", (0, 1)),
    (work_messages, "MESSAGE", (1, 200)),
    (work_messages, "VALUES_AT_A_TIME", (1, 2)),
]
#: Bytes of envelopes in memory, and the usual number.
CACHES, CACHE = (0, 30, 300), 256 << 20


@contextmanager
def bounded(seed: int) -> Iterator[int]:
    """Set some bounds to small values within the block, by the seed; yield the bytes of envelopes in memory."""
    chance, cache = random.Random(f"{seed}/bounds"), CACHE
    with ExitStack() as stack:
        if chance.random() < 0.5:
            for module, name, values in BOUNDS:
                if chance.random() < 0.3:
                    stack.enter_context(patch.object(module, name, chance.choice(values)))
            cache = chance.choice((*CACHES, CACHE))
        yield cache
