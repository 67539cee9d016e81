"""A broker for the pools of a test, on engines that are real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pools.stories import Node
from tests.support.brokers import launch_broker


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DAGORAMA_HOST", "127.0.0.1")
    with launch_broker(port=0):
        yield


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)
