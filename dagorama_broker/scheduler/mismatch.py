"""Says whether a worker may run a function, and why not. The only place that compares the two."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from dagorama_broker.model.domain import Function
from dagorama_broker.scheduler.requests import WorkerInfo


class ReasonCode(StrEnum):
    """Why a node is not running. The codes are stable: programs read them."""

    # of a node
    COMPLETED = "completed"
    FAILED = "failed"
    FAILED_SOURCE = "failed_source"  #: because of another node
    CANCELLED = "cancelled"
    RUNNING = "running"
    BEHIND_RUNNING = "behind_running"  #: on its worker, behind a node that runs
    WITH_SOURCE = "with_source"  #: on its worker, to run when its source has
    MISSING_SOURCE = "missing_source"
    RETURNED_PROMISES = "returned_promises"
    COMPUTED_ELSEWHERE = "computed_elsewhere"  #: another node computes the same, see `caching`
    STARTING = "starting"  #: the large call that created it is not finished
    BACKOFF = "backoff"
    DELAY = "delay"
    SIGNAL = "signal"  #: it waits for one
    PAUSED = "paused"
    KEY_PAUSED = "key_paused"  #: a node has asked for it
    LIMIT = "limit"  #: max_concurrency
    RATE = "rate"  #: the starts that its rate, or a limit, allows are used up
    BUSY = "busy"
    ASKED_FOR = "asked_for"  #: by workers of the legacy protocol
    BEHIND = "behind"  #: older nodes go first
    NEXT = "next"
    RETURNING_WORKERS = "returning_workers"  #: after a restart of the broker
    NO_WORKERS = "no_workers"
    # of a worker that may not run it
    OTHER_PROTOCOL = "other_protocol"
    NOT_INCLUDED = "not_included"
    EXCLUDED_QUEUE = "excluded_queue"
    NO_TOLERATION = "no_toleration"
    MISSING_KEY = "missing_key"
    NOT_IMPORTABLE = "not_importable"
    OTHER_CODE = "other_code"
    NOT_REGISTERED = "not_registered"
    UNCHECKABLE = "uncheckable"
    RESOURCE = "resource"  #: it cannot open something that the function uses
    RETURNED = "returned"  #: it has returned such a node for another reason
    LEAVING = "leaving"


class Mismatch(NamedTuple):
    """Why a worker may not run a function."""

    code: ReasonCode
    text: str  #: a clause about the worker: "it does not include queue 'x' (start one ...)"


def mismatch(own: WorkerInfo, function: Function) -> Mismatch | None:
    """Return why a worker may not run nodes of this function; None: it may, as far as it has said."""
    if function.protocol is not own.protocol:
        return Mismatch(ReasonCode.OTHER_PROTOCOL, "it was made by the other protocol's calls")
    if own.include_queues and function.queue not in own.include_queues:
        text = f"it does not include queue {function.queue!r} (start one with --include-queue {function.queue})"
        return Mismatch(ReasonCode.NOT_INCLUDED, text)
    if function.queue in own.exclude_queues:
        return Mismatch(ReasonCode.EXCLUDED_QUEUE, f"it excludes queue {function.queue!r} (start one that does not)")
    if function.taint and function.taint not in own.tolerations:
        text = f"it does not tolerate {function.taint!r} (start one with --toleration {function.taint})"
        return Mismatch(ReasonCode.NO_TOLERATION, text)
    if function.key_id and function.key_id not in own.key_ids:
        text = f"it does not hold the signing key {function.key_id}: set DAGORAMA_SIGNING_KEYS there"
        return Mismatch(ReasonCode.MISSING_KEY, text)
    if function.rebound_under and function.rebound_under not in own.key_ids:
        text = (
            f"it does not hold the signing key {function.rebound_under} under which its rebinding was signed:"
            " rebind it again, by `dagorama rebind` or `dagorama retry --new-code`, with a key that it holds"
        )
        return Mismatch(ReasonCode.MISSING_KEY, text)
    return None
