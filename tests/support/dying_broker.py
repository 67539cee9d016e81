"""A broker that kills itself with SIGKILL at its Nth commit: before it, or after it and before anybody is told."""

from __future__ import annotations

import os
import signal
from typing import Any

import dagorama_broker.server as server
from dagorama_broker import cli
from dagorama_broker.store import Store, open_store


class DyingStore:
    """The real store, until the commit at which the process ends."""

    def __init__(self, store: Store, commits: int, when: str) -> None:
        self._store = store
        self._left = commits
        self._when = when

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def __repr__(self) -> str:
        return repr(self._store)

    def commit(self, changes: Any) -> None:
        self._left -= 1
        if not self._left and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        self._store.commit(changes)
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Serve as the command of the broker does, until the commit that the environment names."""
    commits = int(os.environ["DIE_AT_COMMIT"])
    if commits:
        when = os.environ["DIE_WHEN"]
        server.open_store = lambda *how: DyingStore(open_store(*how), commits, when)  # type: ignore[attr-defined]  # a store in all but its class
    cli.main()
