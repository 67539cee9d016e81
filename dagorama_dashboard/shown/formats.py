"""Texts for people: numbers, durations, times and sizes, as filters of the templates."""

from __future__ import annotations

import re
from collections.abc import Callable
from time import time
from typing import NamedTuple
from uuid import UUID

from dagorama.api.broker_pb2 import FailureGroup
from dagorama.client.display.tables import duration_text, utc
from dagorama.models.state import State

#: Characters at which the shared parts of the messages of a group end, or a search does.
_DETAILS = re.compile('[…"]')
#: Fewest characters that messages of a group must share for a search by them, and most characters of such a search.
SHORTEST_SHARED, LONGEST_SHARED = 4, 200


class Shown(NamedTuple):
    """How a state of nodes is shown: never by color alone."""

    name: str  #: of the CSS class and of the color variable
    glyph: str
    word: str


SHOWN = {
    State.WAITING: Shown("waiting", "○", "waiting"),
    State.QUEUED: Shown("queued", "◔", "queued"),
    State.CLAIMED: Shown("running", "◐", "running"),
    State.RESOLVING: Shown("waiting", "○", "resolving"),
    State.BACKOFF: Shown("backoff", "↻", "delayed"),
    State.COMPLETED: Shown("done", "●", "done"),
    State.FAILED: Shown("failed", "✕", "failed"),
    State.CANCELLED: Shown("cancelled", "⊘", "cancelled"),
}
#: The order of states in bars and legends.
BAR_ORDER = (
    State.COMPLETED, State.CLAIMED, State.QUEUED, State.BACKOFF, State.WAITING, State.CANCELLED, State.FAILED,
)  # fmt: skip


def shown(state: int) -> Shown:
    """Return how a state is shown, also one of a newer broker."""
    known = state in State.__members__.values()
    return SHOWN[State(state)] if known else Shown("waiting", "?", f"state {state}")


def number(count: float) -> str:
    return f"{count:,.0f}"


def rate(per_second: float) -> str:
    """Return a rate with a sensible number of digits."""
    return f"{per_second:,.0f}" if per_second >= 9.95 or not per_second else f"{per_second:.2g}"


def duration(seconds: float) -> str:
    return duration_text(round(seconds * 1_000_000)) or "0 s"


def age(seconds: float) -> str:
    """Return how long ago or how long something is, in one unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def ago(moment: float) -> str:
    """Return how long ago a moment was, in seconds since 1970; an empty text for 0."""
    if not moment:
        return ""
    seconds = time() - moment
    return f"in {age(-seconds)}" if seconds < -1 else f"{age(seconds)} ago"


def iso(moment: float) -> str:
    """Return a moment in UTC, for machines and titles."""
    return utc(moment).isoformat(timespec="milliseconds") if moment else ""


def clock(moment: float) -> str:
    """Return the local time of day of a moment, with milliseconds."""
    return utc(moment).astimezone().strftime("%H:%M:%S.%f")[:-3] if moment else ""


def due(moment: float) -> str:
    """Return the local time of a moment to come, with the date if it is not within half a day."""
    form = "%H:%M:%S" if abs(moment - time()) < 43_200 else "%Y-%m-%d %H:%M:%S"
    return utc(moment).astimezone().strftime(form) if moment else ""


def size(count: int) -> str:
    """Return a number of bytes with its unit."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"


def uuid(id: bytes) -> str:
    return f"{UUID(bytes=id)}" if len(id) == 16 else ""


def short(id: bytes) -> str:
    """Return the first digits of an ID, which usually are enough to name it."""
    return id.hex()[:8]


def function_label(name: str) -> str:
    """Return the name of a function, or of a definition, without its module."""
    return name.rpartition(":")[2] or name


def module(name: str) -> str:
    """Return the module of a function, a definition or a queue that is named after one."""
    return name.rpartition(":")[0]


def label_search(name: str, value: str) -> str:
    """Return the search for instances with a label."""
    return 'label:"' + f"{name}={value}".replace('"', '""') + '"'


def failure_search(group: FailureGroup) -> str:
    """Return the search for instances with nodes of a group: by function, and by what their messages share."""
    shared = max(_DETAILS.split(group.message), key=len).strip()[:LONGEST_SHARED]
    error = shared if len(shared) >= SHORTEST_SHARED else group.type
    terms = {"function": group.function, "error": error}
    return " ".join(f'{key}:"{text}"' for key, text in terms.items() if text and '"' not in text)


FILTERS: dict[str, Callable[..., str]] = {
    "number": number, "rate": rate, "duration": duration, "age": age, "ago": ago, "iso": iso, "clock": clock,
    "due": due,
    "size": size, "uuid": uuid, "short": short, "label": function_label, "module": module,
    "search": failure_search, "label_search": label_search,
}  # fmt: skip
