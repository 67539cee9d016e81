"""A broker with instances of all kinds, and its dashboard, for tests that only look."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest

from dagorama import start
from dagorama.client.connection import connection
from dagorama_broker.launch import LaunchedBroker
from tests.dashboard.serving import Dashboard, dashboard
from tests.dashboard.shown_work import HOSTILE, QUOTED, Lonely, Shapes
from tests.support.brokers import launch_broker
from tests.support.tokens import Tokens
from tests.support.workers import launch_workers


class Seen(NamedTuple):
    """A dashboard, and the instances on it."""

    pages: Dashboard
    completed: UUID
    failed: UUID
    stuck: UUID


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    """Yield a dashboard on which an instance has completed, one has failed, and one can never run."""
    with launch_broker(0) as broker:
        ids = [
            start(definition, id=name, labels={"tenant": HOSTILE, **QUOTED}, fair=HOSTILE)(*arguments)[0].instance_id
            for name, definition, arguments in (
                ("fine", Shapes(), (3, -1)),
                ("broken", Shapes(), (4, 2)),
                ("lonely", Lonely(), ()),
            )
        ]
        with launch_workers(1, exit_on_completion=True) as workers:
            for worker in workers:
                worker.join()
        with dashboard(broker.host, broker.port) as pages:
            yield Seen(pages, *ids)
    connection().close_stream()


@pytest.fixture
def empty() -> Iterator[tuple[Dashboard, LaunchedBroker]]:
    """Yield a dashboard of a broker without instances, and the broker."""
    with launch_broker(0) as broker, dashboard(broker.host, broker.port) as pages:
        yield pages, broker


class Guarded(NamedTuple):
    """A dashboard of a broker that requires tokens."""

    pages: Dashboard
    tokens: Tokens
    broker: LaunchedBroker


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    tokens = Tokens(tmp_path / "tokens.toml")
    for role in ("admin", "client", "worker", "reader"):
        tokens.add(role, role)
    tokens.add("listener", "reader", logs=True)
    tokens.add("anna", "signaller")
    environment = {"DAGORAMA_TOKENS_FILE": f"{tokens.path}"}
    with launch_broker(0, environment=environment) as broker, dashboard(broker.host, broker.port) as pages:
        yield Guarded(pages, tokens, broker)


@pytest.fixture
def as_admin(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    """Return the guarded dashboard, for a test whose own calls are an admin's."""
    monkeypatch.setitem(os.environ, "DAGORAMA_AUTH_TOKEN", guarded.tokens["admin"])
    return guarded
