"""Explain why awaited nodes have not ended: ask the broker once, briefly, and the workers launched by this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from time import localtime, strftime, time
from typing import NamedTuple

from dagorama.api import broker_pb2
from dagorama.client.connection import connection
from dagorama.errors import BrokerError, BrokerUnavailable, SettingsError
from dagorama.models.state import State

#: Seconds that the broker has to answer.
DEADLINE = 1.0
#: The largest number of functions that one sentence names.
NAMED = 5
#: The largest number of nodes that one request names.
MOST_ASKED = 1_000


class Reasons(NamedTuple):
    """The obstacles that keep nodes from ending, and the states of the nodes that have none."""

    obstacles: tuple[str, ...] = ()  #: a sentence for each function that no connected worker may run, or the broker
    known: frozenset[str] = frozenset()  #: the obstacles without counts, equal as long as nothing changes
    standing: str = ""  #: the states of the other nodes; empty if they are unknown

    @property
    def text(self) -> str:
        """Everything in one sentence; empty if nothing is known."""
        named = list(self.obstacles[:NAMED]) or [self.standing]
        if len(self.obstacles) > NAMED:
            named.append(f"and {len(self.obstacles) - NAMED} more functions cannot run")
        return "; ".join(filter(None, [*named, ended_workers()]))


def reasons(owners: Mapping[bytes, bytes]) -> Reasons:
    """Ask the broker about nodes, at most MOST_ASKED of them; `owners` maps each to its instance.

    Returns empty reasons if the broker gives none; never raises BrokerError.
    """
    try:
        link = connection()
    except SettingsError as error:  # the environment has changed since the wait began
        return _only(f"{error}")
    try:
        reply = link.explain(dict(islice(owners.items(), MOST_ASKED)), DEADLINE)
    except BrokerUnavailable as error:
        return _only(f"the broker at {link.address} does not answer ({error.status})")
    except BrokerError:
        return Reasons()  # an older broker does not have this call; the wait itself reports other errors
    known = frozenset(f"{each.function.name}: {each.reason}" for each in reply.unschedulable)
    at_least = "at least " if reply.more else ""
    sentences = tuple(at_least + obstacle(each) for each in reply.unschedulable)
    return Reasons(sentences, known, _standing(reply, len(owners)))


def why(owners: Mapping[bytes, bytes]) -> str:
    """Return in one sentence why nodes have not ended; empty if nothing is known.

    If one node is asked about and workers may run all that it waits for, it is what `dagorama explain` says.
    """
    found = reasons(owners)
    if len(owners) == 1 and not found.obstacles:
        ((node, instance),) = owners.items()
        explained = _explained(instance, node)
        if explained:
            return "; ".join(filter(None, [explained, ended_workers()]))
    return found.text


def _explained(instance: bytes, node: bytes) -> str:
    """Return what the broker says of one node, in one line; empty if it says nothing."""
    try:
        found = connection().explain_node_once(instance, node, DEADLINE)
    except (BrokerError, SettingsError):
        return ""  # an older broker does not have this call; the caller says what is known without it
    lines = [_reason(reason) for reason in found.reasons]
    for cause in found.causes:
        nodes = "1 node" if cause.nodes == 1 else f"{cause.nodes:,} nodes"
        of = f"{nodes} of {cause.function.rpartition(':')[2]} ({State(cause.state).name})"
        lines.append(f"it ultimately waits for {of}: {', '.join(map(_reason, cause.reasons))}")
    if found.left_out:
        lines.append(f"and for {found.left_out} other group{'' if found.left_out == 1 else 's'} of nodes")
    return "; ".join(lines)


def _reason(reason: broker_pb2.Reason) -> str:
    return f"{reason.text}, until {_time(reason.until)}" if reason.until else reason.text


def _only(what: str) -> Reasons:
    return Reasons((what,), frozenset([what]))


def obstacle(found: broker_pb2.Unschedulable) -> str:
    """Return a sentence about queued nodes that no connected worker may run."""
    nodes = "1 queued node" if found.queued == 1 else f"{found.queued:,} queued nodes"
    return f"{nodes} of {found.function.name} cannot run: {found.reason}"


def _standing(reply: broker_pb2.ExplainReply, asked: int) -> str:
    """Return a clause about the states of nodes that have no obstacle."""
    if asked == 1 and not reply.waiting:
        return _of_one(reply)
    at_least = "at least " if reply.more else ""
    parts = [
        f"{at_least}{count:,} {'is' if count == 1 else 'are'} {what}"
        for count, what in (
            (reply.running, f"running{', one of them' if reply.running > 1 else ''} on {reply.worker}"),
            (reply.queued, "queued"),
            (reply.delayed, f"delayed, the next until {_time(reply.retry_at)}"),
        )
        if count
    ]
    return f"of the nodes that it takes {', '.join(parts)}" if parts else ""


def _of_one(reply: broker_pb2.ExplainReply) -> str:
    if reply.running:
        return f"it is still running on {reply.worker}"
    if reply.queued:
        return "it is queued: the workers that may run it have other work"
    return f"it waits for its next run at {_time(reply.retry_at)}" if reply.delayed else ""


def _time(seconds: float) -> str:
    """Return the local time, with the date if it is not within half a day."""
    form = "%H:%M:%S" if abs(seconds - time()) < 43_200 else "%Y-%m-%d %H:%M:%S"
    return strftime(form, localtime(seconds))


# --- workers that this process has launched ----------------------------------------------------------

#: Returns how all workers of one launch_workers() block have ended; empty if one of them is alive.
HowEnded = Callable[[], str]

_blocks: list[HowEnded] = []


@contextmanager
def reporting(how_ended: HowEnded) -> Iterator[None]:
    """Let `ended_workers` call `how_ended` within the block."""
    _blocks.append(how_ended)
    try:
        yield
    finally:
        _blocks.remove(how_ended)


def ended_workers() -> str:
    """Return a sentence about launched workers that have all ended; empty if one is alive or none were launched."""
    found = [how_ended() for how_ended in list(_blocks)]
    return "; ".join(found) if all(found) else ""
