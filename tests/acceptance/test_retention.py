"""A finished instance is forgotten after its time, and whoever asks for it then is told so."""

from __future__ import annotations

from uuid import UUID

import pytest

from dagorama import DAGDefinition, NotFound, dagorama, resolve, state
from tests.support.brokers import launch_broker
from tests.support.workers import launch_workers

WAIT = 30  #: seconds after which something that should happen is taken not to


class Doubling(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.double(number)

    @dagorama().syncfn
    def double(self, number: int) -> int:
        return 2 * number


def resolve_for_ever(instance_id: UUID) -> None:
    """Until that is refused; the test's own timeout is the bound."""
    while True:
        assert resolve(*Doubling.attach(instance_id), timeout=WAIT) == 42


def test_resolving_what_was_removed_says_when_it_ended_and_how_long_it_was_kept() -> None:
    with launch_broker(port=0, environment={"DAGORAMA_RETENTION": "0.5"}), launch_workers(1):
        instance, promise = Doubling()(21)
        assert resolve(instance, promise, timeout=WAIT) == 42
        sentence = r"ended on \d{4}-\d\d-\d\d .* was removed after its retention of 0.5 s \(DAGORAMA_RETENTION\)"
        with pytest.raises(NotFound, match=sentence):
            resolve_for_ever(instance.instance_id)
        with pytest.raises(NotFound, match=sentence):
            state(instance, promise)
