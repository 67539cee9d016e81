"""Why nodes that are waited for have not ended, in words. The broker knows; it is asked once, and never for long."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from time import localtime, strftime
from typing import NamedTuple

from dagorama.api import broker_pb2
from dagorama.client.connection import connection
from dagorama.client.ended_workers import ended_workers
from dagorama.errors import BrokerError, BrokerUnavailable, SettingsError

#: seconds that the broker has to answer
DEADLINE = 1.0
#: functions that one sentence names
NAMED = 5
#: nodes that one question names
MOST_ASKED = 1_000


class Reasons(NamedTuple):
    """What keeps nodes from ending, and how those stand that nothing keeps."""

    obstacles: tuple[str, ...] = ()  #: a sentence for each function that no connected worker may run, or the broker
    known: frozenset[str] = frozenset()  #: the same without counts: what they are, as long as nothing changes
    standing: str = ""  #: how the nodes stand; empty if that is not known

    @property
    def text(self) -> str:
        """All of it in one sentence; empty if nothing is known."""
        named = list(self.obstacles[:NAMED]) or [self.standing]
        if len(self.obstacles) > NAMED:
            named.append(f"and so it is with {len(self.obstacles) - NAMED} other functions")
        return "; ".join(filter(None, [*named, ended_workers()]))


def reasons(owners: Mapping[bytes, bytes]) -> Reasons:
    """Ask the broker about nodes, whose instances `owners` has. Nothing is raised: there may be nothing to say.

    Of very many nodes it is asked about the first.
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
        return Reasons()  # an older broker has no such call; the wait itself says what else may be wrong
    known = frozenset(f"{each.function.name}: {each.reason}" for each in reply.unservable)
    at_least = "at least " if reply.more else ""
    sentences = tuple(at_least + obstacle(each) for each in reply.unservable)
    return Reasons(sentences, known, _standing(reply, len(owners)))


def _only(what: str) -> Reasons:
    return Reasons((what,), frozenset([what]))


def obstacle(found: broker_pb2.Unservable) -> str:
    """A sentence about queued nodes that no connected worker may run."""
    nodes = "1 queued node" if found.queued == 1 else f"{found.queued:,} queued nodes"
    return f"{nodes} of {found.function.name} cannot run: {found.reason}"


def _standing(reply: broker_pb2.ExplainReply, asked: int) -> str:
    """How nodes stand that will end by themselves."""
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
    return strftime("%H:%M:%S", localtime(seconds))
