"""A broker's side of `launch`: tells its launcher that it serves or why it cannot, and leaves when that one is gone.

Three hidden options carry it: `--announce FD`, a pipe that gets one line of JSON and is held open to the end;
`--lifeline FD`, a pipe whose other end only the launcher holds; `--scratch FOLDER`, temporary files, removed at last.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from shutil import rmtree
from threading import Thread
from time import sleep

#: Seconds that a broker whose launcher is gone has to end cleanly.
LAST_SECONDS = 5.0


class Launcher:
    """Whoever launched this process; each of the three may be missing."""

    def __init__(self, announce: int | None = None, lifeline: int | None = None, scratch: str | None = None) -> None:
        self.listens = announce is not None
        self._announce = announce
        self._lifeline = lifeline
        self._scratch = scratch
        if scratch is not None:
            tempfile.tempdir = scratch

    def tell(self, **facts: object) -> None:
        """One line of JSON to the launcher; it may have left."""
        if self._announce is not None:
            try:
                os.write(self._announce, json.dumps(facts).encode() + b"\n")
            except BrokenPipeError:
                self._announce = None

    def when_gone(self, leave: Callable[[], object]) -> None:
        """Call `leave` from a thread once the launcher is gone; a process still there some seconds later is ended."""
        if self._lifeline is not None:
            Thread(target=self._outlive, args=(self._lifeline, leave), daemon=True).start()

    def _outlive(self, lifeline: int, leave: Callable[[], object]) -> None:
        while os.read(lifeline, 1):
            pass
        leave()
        sleep(LAST_SECONDS)
        self.clean_up()
        os._exit(1)

    def clean_up(self) -> None:
        if self._scratch is not None:
            rmtree(self._scratch, ignore_errors=True)
