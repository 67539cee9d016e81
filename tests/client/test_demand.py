"""A pool follows its demand at the broker, while that is away and after it has come back, until it is refused."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest

from dagorama.api import broker_pb2 as pb
from dagorama.client import demand
from dagorama.client.connection import Connection
from dagorama.client.demand import BrokerAway, Demand, DemandWatch
from dagorama.errors import AccessDenied, BrokerError
from dagorama.settings import Settings
from tests.support.demand_broker import GONE, new_broker, served


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "LONGEST_PAUSE", 0.1)


def watch_of(port: int, **asked: Any) -> DemandWatch:
    return DemandWatch(Connection(Settings(host="127.0.0.1", port=port)), pb.DemandRequest(**asked))


def test_each_change_is_told_with_all_that_it_follows_from() -> None:
    broker = new_broker()
    with served(broker) as port:
        watch = watch_of(port, tolerations=["GPU"])
        replies = iter(watch)
        broker.says.put(pb.DemandReply(slots=3, running=1, running_slots=1, ready=2, connected=1, busy=1))
        assert next(replies) == Demand(3, running=1, running_slots=1, ready=2, connected=1, busy=1)
        broker.says.put(pb.DemandReply(slots=1, leaving=1, leaving_slots=1, unservable=4, missing_key=5))
        assert next(replies) == Demand(1, leaving=1, leaving_slots=1, unservable=4, missing_key=5)
        assert list(broker.asked[0].tolerations) == ["GPU"]
        watch.close()
        assert list(replies) == []


def test_a_broker_that_is_away_is_told_once_and_the_next_one_is_followed() -> None:
    first, second = new_broker(), new_broker()
    with served(first) as port:
        watch = watch_of(port)
        replies = iter(watch)
        first.says.put(pb.DemandReply(slots=1))
        assert next(replies) == Demand(1)
        first.says.put(GONE)
        assert "no broker answers at" in next(replies).why  # type: ignore[union-attr]  # a BrokerAway
    second.says.put(pb.DemandReply(slots=2))
    with served(second, port):
        assert next(replies) == Demand(2)
        second.says.put(GONE)
        assert isinstance(next(replies), BrokerAway)
        watch.close()


def test_the_broker_that_takes_over_at_another_address_is_followed() -> None:
    first, second = new_broker(), new_broker()
    with served(first) as port:
        watch = DemandWatch(Connection(Settings(host="127.0.0.1,127.0.0.2", port=port)), pb.DemandRequest())
        replies = iter(watch)
        first.says.put(pb.DemandReply(slots=1))
        assert next(replies) == Demand(1)
    second.says.put(pb.DemandReply(slots=2))
    with served(second, port, "127.0.0.2"):
        found = next(replies)
        # A sentence comes first if the watch has asked before the second broker served.
        assert (next(replies) if isinstance(found, BrokerAway) else found) == Demand(2)
        watch.close()


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, AccessDenied, "as the test says"),
        (grpc.StatusCode.UNIMPLEMENTED, BrokerError, "is too old to report the demand: upgrade it"),
    ],
)
def test_a_broker_that_refuses_ends_the_watch(status: grpc.StatusCode, error: type[BrokerError], said: str) -> None:
    broker = new_broker()
    with served(broker) as port:
        broker.says.put(status)
        with pytest.raises(error, match=said):
            next(iter(watch_of(port)))


def test_a_watch_is_closed_by_another_thread_while_the_broker_is_silent() -> None:
    broker = new_broker()
    with served(broker) as port:
        watch, seen = watch_of(port), threading.Event()

        def close() -> None:
            seen.wait()
            watch.close()

        closing = threading.Thread(target=close)
        closing.start()
        broker.says.put(pb.DemandReply(slots=1))
        for _ in watch:
            seen.set()
        closing.join()
