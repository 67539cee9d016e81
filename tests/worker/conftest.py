"""A broker for each test that asks for one, and workers that are gone when it ends."""

from collections.abc import Iterator

import pytest

from tests.support.scripted_broker import ScriptedBroker


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    made = ScriptedBroker()  # type: ignore[abstract]  # it lacks the calls that no worker makes
    yield made
    made.stop()
