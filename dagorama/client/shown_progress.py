"""Show the progress of an instance while a call waits for it: `resolve(..., progress=True)`.

The rule: the display never keeps the caller waiting for long, and if nothing can be shown, a warning says why.
"""

from __future__ import annotations

import sys
import threading
from io import StringIO
from uuid import UUID

from dagorama.client.connection import connection
from dagorama.client.display.progress import display_for
from dagorama.client.progress import Watch
from dagorama.client.worker_thread import in_thread
from dagorama.errors import BrokerError
from dagorama.logging import get_logger

#: Seconds that the last state may take to be shown after the wait is over.
FAREWELL = 2.0


class ShownProgress:
    """Shows the progress of an instance within `with` or `async with`, on stderr or in a notebook."""

    def __init__(self, instance: bytes) -> None:
        self._watch = Watch(connection(), instance)
        stream = sys.stderr or StringIO()  # a program without a console has no stderr
        self._display = display_for(str(UUID(bytes=instance)), stream, notebooks=True)
        self._thread = threading.Thread(target=self._follow, name="dagorama-progress", daemon=True)

    def _follow(self) -> None:
        """Show each state; when the wait is over, show the last one."""
        try:
            has_ended = False
            for progress in self._watch:
                self._display.show(progress)
                has_ended = progress.ended_at is not None
            if not has_ended:
                self._display.show(self._watch.now())
        except (BrokerError, OSError) as error:
            get_logger().warning("no progress is shown: %s", error)
        finally:
            self._display.close()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._watch.close()
        self._thread.join(FAREWELL)

    async def __aenter__(self) -> None:
        self._thread.start()

    async def __aexit__(self, *_: object) -> None:
        self._watch.close()
        await in_thread(self._thread.join, FAREWELL)
