"""How long to pause before the next run of a node that failed."""

from __future__ import annotations

from dagorama_broker.model import RetryPolicy

#: A pause is never longer than this many seconds.
LONGEST_PAUSE = 366 * 86_400.0


def pause(policy: RetryPolicy, runs: int, jitter: float) -> float:
    """Seconds between the run that failed as the `runs`-th and the next; `jitter` in [0, 1) only adds."""
    try:
        seconds = policy.interval * policy.base ** (runs - 1) if policy.base else policy.interval
    except OverflowError:
        seconds = LONGEST_PAUSE
    if policy.max_interval:
        seconds = min(seconds, policy.max_interval)
    return min(seconds + policy.jitter * jitter, LONGEST_PAUSE)
