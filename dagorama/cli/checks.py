"""`dagorama check` next to a program: in a process of its own, which prints findings and holds nothing up.

The command belongs to another package, which this one never imports.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import DEVNULL, Popen

import click

#: Arguments of Python: the command, which prints one line for each finding, and nothing if there is none.
CHECK = ("-m", "dagorama", "check", "--quiet")
_STDERR = 2


class FolderCheck:
    """Checks a folder on request; a new check ends the one before."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = os.path.relpath(folder)
        self._process: Popen[bytes] | None = None

    def start(self) -> None:
        """Begin a check, which prints findings on stderr. One that still runs is ended: its files have changed."""
        self.stop()
        # -P: do not import files of the user's folder instead of our modules.
        command = [sys.executable, "-P", *CHECK, self._folder]
        try:
            self._process = Popen(command, stdin=DEVNULL, stdout=_STDERR, stderr=_STDERR)
        except OSError as error:
            click.echo(f"dagorama check cannot be started: {error.strerror}", err=True)

    def stop(self) -> None:
        """End a check that still runs."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait()
