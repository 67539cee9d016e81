"""Defines schedules: which instance is started, when, and what happens to times that were missed or overlap."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

#: Missed times of one schedule that are made up for at once.
MOST_CAUGHT_UP = 100


class Overlap(StrEnum):
    """What a schedule does at its time while its last instance has not ended."""

    SKIP = "skip"  #: starts nothing
    QUEUE = "queue"  #: starts one instance as soon as the last one has ended
    ALLOW = "allow"  #: starts another one
    REPLACE = "replace"  #: cancels the last one, and starts another


class CatchUp(StrEnum):
    """What a schedule does about times at which no broker ran."""

    LAST = "last"  #: starts an instance for the last one
    NONE = "none"  #: starts nothing
    ALL = "all"  #: starts an instance for each of them, at most `MOST_CAUGHT_UP`


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a schedule: those of a cron expression in a time zone, or one every so many seconds."""

    cron: str = ""  #: five fields, or six with seconds first; empty: `every` counts
    zone: str = "UTC"  #: IANA name of the time zone in which `cron` is read
    every: float = 0.0  #: seconds
    start: float = 0.0  #: seconds since 1970 from which `every` is counted


class ScheduleRow(NamedTuple):
    """A schedule as it is stored."""

    name: str  #: its id
    definition: str
    function: int  #: of the entry point
    arguments: bytes  #: an envelope, signed for this schedule
    cron: str
    zone: str
    every: float
    start: float
    overlap: str
    catch_up: str
    paused: bool
    fired: float  #: seconds since 1970: the last time that was decided about; none up to it is decided about again
    instance: bytes = b""  #: of the last instance that it has started; empty: it has started none
