"""Defines schedules: which instance is started, when, and how missed and overlapping times are treated."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import NamedTuple

from dagorama_broker.model.domain import Function, Rate, RetryPolicy, SharedLimit, WireProtocol
from dagorama_broker.model.hooks import Hook

#: Missed times of one schedule that are made up for at once.
MOST_CAUGHT_UP = 100
#: Schedules of one broker.
MOST_SCHEDULES = 10_000
_HOOK, _FAIR = "failure hook", "fair key"  # no names of fields of functions


class Overlap(StrEnum):
    """The rule for a time of a schedule whose last instance has not ended."""

    SKIP = "skip"  #: start nothing
    QUEUE = "queue"  #: start one instance as soon as the last one has ended
    ALLOW = "allow"  #: start another one
    REPLACE = "replace"  #: cancel the last one, and start another


class CatchUp(StrEnum):
    """The rule for times of a schedule at which no broker ran."""

    LAST = "last"  #: start an instance for the last one
    NONE = "none"  #: start nothing
    ALL = "all"  #: start an instance for each of them, at most `MOST_CAUGHT_UP`


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a schedule: of a cron expression in a time zone, or at an interval."""

    cron: str = ""  #: five fields, or six with seconds first; empty: `every` counts
    zone: str = "UTC"  #: IANA name of the time zone in which `cron` is read
    every: float = 0.0  #: seconds
    start: float = 0.0  #: seconds since 1970 from which `every` is counted


class ScheduleRow(NamedTuple):
    """A schedule as it is stored. A later row with the same name replaces it."""

    name: str  #: its ID
    definition: str
    function: bytes  #: the entry point, and the failure hook if there is one, see `packed_function`
    arguments: bytes  #: an envelope, signed for this schedule
    cron: str
    zone: str
    every: float
    start: float
    overlap: str
    catch_up: str
    paused: bool
    fired: float  #: seconds since 1970: times up to this one were decided about
    instance: bytes = b""  #: of the last instance that it has started; empty: it has started none
    #: The time for which an instance starts when the last one has ended; 0: there is none. If it is after `fired`, so
    #: does each of the times between: they were missed and are caught up with, one after the other.
    waiting: float = 0.0
    digest: bytes = b""  #: of what its instances are started with, see `Start`
    key: str = ""  #: concurrency key of the entry point; empty: it has none
    put: float = 0.0  #: seconds since 1970 at which it was put with these times
    by: str = ""  #: name of the token of the one who has put it
    last: float = 0.0  #: the time for which the last instance was started; 0: there is none
    missed: float = 0.0  #: times for which nothing was started, as far as they were counted
    missed_at: float = 0.0  #: when it was last found that times were missed, in seconds since 1970
    uncounted: bool = False  #: more times were missed than counted

    @property
    def is_catching_up(self) -> bool:
        """Whether instances for missed times start one after the other."""
        return self.waiting > self.fired

    @property
    def times(self) -> Times:
        return Times(self.cron, self.zone, self.every, self.start)


def packed_function(function: Function, hook: Hook | None = None, fair: str = "") -> bytes:
    """Return a function as a schedule or a hook keeps it: its own row is dropped when no node names it.

    `hook` and `fair` are what the instances of a schedule get that has this entry point.
    """
    fields = asdict(function)
    if hook is not None:
        fields[_HOOK] = hook.packed()
    if fair:
        fields[_FAIR] = fair
    return json.dumps(fields, sort_keys=True).encode()


def unpacked_function(packed: bytes) -> Function:
    """Return the function that `packed_function` has packed."""
    fields = json.loads(packed)
    for other in (_HOOK, _FAIR):
        fields.pop(other, None)
    fields["protocol"] = WireProtocol(fields["protocol"])
    if fields["retry"] is not None:
        fields["retry"] = RetryPolicy(**fields["retry"])
    fields["rate"] = _rate(fields.get("rate"))
    if fields.get("limit") is not None:
        name, rate, max_concurrency = fields["limit"]
        fields["limit"] = SharedLimit(name, _rate(rate), max_concurrency)
    return Function(**fields)


def _rate(fields: list[float] | None) -> Rate | None:
    return Rate(int(fields[0]), fields[1]) if fields is not None else None


def unpacked_hook(packed: bytes) -> Hook | None:
    """Return the hook that `packed_function` has packed; None: there is none."""
    found = json.loads(packed).get(_HOOK)
    return Hook.unpacked(found) if found is not None else None


def unpacked_fair(packed: bytes) -> str:
    """Return the fair key that `packed_function` has packed; empty: there is none."""
    return str(json.loads(packed).get(_FAIR, ""))
