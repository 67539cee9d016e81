"""How long a broker that does not answer is waited for: from the first call that fails, and not from its last answer.

A wait may be hours old when its broker is restarted, and its age says nothing about how long the restart takes.
"""

from __future__ import annotations

from time import monotonic

#: Seconds for which a call is tried again at an address where no broker has answered this process. Where one has, it is
#: `settings.broker_wait()`: it may be reading its store back, or another may be taking over.
PATIENCE = 3.0


class Loss:
    """A broker that is gone, as far as one call or one wait has noticed."""

    def __init__(self) -> None:
        self._since: float | None = None  # by the monotonic clock; None: it is there
        self._broken_off = 0  # connections that came about since its last answer

    @property
    def is_doubtful(self) -> bool:
        """Whether connections come about and break off without an answer: only an answer shows that it is back."""
        return self._broken_off > 1

    def noticed(self, was_connected: bool) -> float:
        """Note that a call failed; returns for how many seconds the broker has been gone.

        If there was a connection, the broker was there until now, unless that is doubtful.
        """
        now = monotonic()
        if self._since is None or (was_connected and not self.is_doubtful):
            self._since = now
        self._broken_off += was_connected
        return now - self._since

    def over(self) -> None:
        """Note that the broker has answered."""
        self._since, self._broken_off = None, 0
