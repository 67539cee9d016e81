"""The program that has launched a broker, which may be a script, a test or `dagorama dev`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from shutil import rmtree
from threading import Thread
from time import sleep

#: Seconds that a broker has to end cleanly after its launcher has ended.
LAST_SECONDS = 5.0


class Launcher:
    """The program that launched this process; each of its three connections may be missing."""

    def __init__(self, announce: int | None = None, lifeline: int | None = None, scratch: str | None = None) -> None:
        self.listens = announce is not None
        self._announce = announce
        self._lifeline = lifeline
        self._scratch = scratch
        if scratch is not None:
            tempfile.tempdir = scratch

    def tell(self, **facts: object) -> None:
        """Send one line of JSON to the launcher, which may have ended."""
        if self._announce is not None:
            try:
                os.write(self._announce, json.dumps(facts).encode() + b"\n")
            except BrokenPipeError:
                self._announce = None

    def when_gone(self, leave: Callable[[], object]) -> None:
        """Call `leave` from a thread once the launcher has ended; kill this process if it runs some seconds later."""
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
        """Delete the folder for temporary files."""
        if self._scratch is not None:
            rmtree(self._scratch, ignore_errors=True)
