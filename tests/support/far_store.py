"""A store that is not near: it must never be asked in a thread that runs an event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import pytest

import dagorama_broker.server as server
from dagorama_broker.engine.looks import Looks
from dagorama_broker.store import Store, StoreOptions, open_store

#: Attributes that any thread may read, because they do not ask the store.
FREE = {"near", "logs_path", "secret", "last_used", "is_the_store", "is_sure", "keep", "stop_waiting", "path", "tables"}


class FarStore:
    """A real store, and the view of one, that refuses to be called in the loop."""

    near = False

    def __init__(self, store: Any) -> None:
        self._store = store
        self.looks = 0  #: how often it was asked about submissions

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return found if name in FREE or not callable(found) else elsewhere(found)

    def __repr__(self) -> str:
        return repr(self._store)

    @property
    def view(self) -> FarStore:
        return FarStore(self._store.view)

    def look(self, wanted: Any) -> Any:
        self.looks += 1
        return elsewhere(self._store.look)(wanted)


def elsewhere(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the call, which raises an AssertionError if the broker makes it in a thread that runs an event loop."""

    @wraps(call)
    def called(*arguments: Any, **named: Any) -> Any:
        is_in_loop = asyncio._get_running_loop() is not None
        # A test may ask what the store has.
        if is_in_loop and sys._getframe(1).f_globals["__name__"].startswith("dagorama_broker."):
            raise AssertionError(f"{call.__name__}() was called in the event loop")
        return call(*arguments, **named)

    return called


def far(url: str, options: StoreOptions | None = None) -> Store:
    """Return the store of this URL, not yet open, as one that is not near."""
    return cast("Store", FarStore(open_store(url, options)))


async def _learn_nothing(looks: Looks) -> None:
    """Leave it unknown which IDs are unused."""


@pytest.fixture(params=["near", "far"], autouse=True)
def distance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Serve with stores that are near, and with stores that are not; "asked": even if nothing can be known of an ID."""
    if request.param != "near":
        monkeypatch.setattr(server, "open_store", far)
    if request.param == "asked":
        monkeypatch.setattr(Looks, "run", _learn_nothing)
    return str(request.param)
