"""Defines the records of what people, and programs on their behalf, have done."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

#: Actions that a store keeps, the latest.
MOST_ACTIONS = 10_000


class ActionKind(StrEnum):
    """The kind of an action; the wire uses the same words."""

    CANCEL = "cancel"
    RETRY = "retry"
    REBIND = "rebind"
    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    DELETE = "delete"
    SCHEDULE = "schedule"
    UNSCHEDULE = "unschedule"
    PAUSE_SCHEDULE = "pause-schedule"
    RESUME_SCHEDULE = "resume-schedule"
    CLEAR_CACHE = "clear cache"


class ActionRow(NamedTuple):
    """An action that has changed something."""

    action: str  #: an `ActionKind`
    by: str  #: name of the token of the caller; empty: the broker requires none
    instance: bytes = b""  #: its 16-byte ID, if the action is about one
    #: the queue, worker, function or schedule; if it is empty, the store adds the definition of the instance
    target: str = ""
    nodes: int = 0  #: that it has changed, or that it is about
    time: float = 0.0  #: seconds since 1970; the scheduler sets it


class StoredAction(NamedTuple):
    number: int  #: counts up
    row: ActionRow


class ListedActions(NamedTuple):
    actions: list[StoredAction]  #: the latest first
    more: int  #: pass this as `before` for the next page; 0: this is the last
    total: int  #: on all pages
