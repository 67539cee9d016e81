"""Sends the wait for an instance's entry node with its submission, if the thread has waited for its last instance.

A caller that submits one instance after the other, and waits for each, then sends one message less for each. Each
thread is observed by itself: the first submission that it does not wait for ends this. Such a wait may be refused
although a later one is not, because the broker reads it before it has made the nodes; then the caller waits as before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from dagorama.api import broker_pb2 as pb
from dagorama.client.replies import Peer, Replies, StreamReplies
from dagorama.client.stream import PendingRequest
from dagorama.errors import BrokerError, BrokerUnavailable


class EarlyWaits(threading.local):
    """The wait that went along with the last submission of this thread."""

    def __init__(self) -> None:
        self._entry = b""  # of the last submission
        self._pending: PendingRequest | None = None
        self._is_habit = False

    def for_submission(self, request: pb.SubmitRequest) -> pb.WaitRequest | None:
        """Note a submission; return the wait that should go along with it, if any."""
        if self._pending is not None:
            self._is_habit = False
            self.drop()
        self._entry = b""
        made = request.nodes[0] if len(request.nodes) == 1 else pb.Nodes()
        if made.HasField("creates") and made.function:
            self._entry = made.creates.entry
            if self._is_habit:
                return pb.WaitRequest(instance=made.instance, node=[self._entry])
        return None

    def put(self, pending: PendingRequest) -> None:
        """Keep the wait that went along with a submission that has succeeded."""
        self._pending = pending

    def take(self, node: bytes) -> PendingRequest | None:
        """Note that the caller waits for a node; return its wait if that went along with the submission."""
        if node != self._entry:
            return None
        self._is_habit, self._entry = True, b""
        pending, self._pending = self._pending, None
        return pending

    def drop(self) -> None:
        """Cancel the wait of a caller that has not asked for it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.forget()


class EarlyReplies:
    """The replies to a wait that was sent before the caller asked for it."""

    def __init__(
        self, peer: Peer, pending: PendingRequest, timeout: float | None, again: Callable[[], Replies]
    ) -> None:
        """`again` asks for the same wait once more, by itself."""
        self._replies: Replies = StreamReplies(peer, pending, timeout)
        self._again = again
        self._is_cancelled = False

    def __iter__(self) -> Iterator[pb.WaitReply]:
        has_heard = False
        try:
            for reply in self._replies:
                has_heard = True
                yield reply
            return
        except BrokerUnavailable:
            raise
        except BrokerError:
            if has_heard or self._is_cancelled:
                raise
        self._replies = self._again()
        yield from self._replies

    def cancel(self) -> None:
        self._is_cancelled = True
        self._replies.cancel()
