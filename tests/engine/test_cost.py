"""Count the broker's function calls for each node of a wide fan, from message to message.

There is no clock: the scheduler, the messages and the rows of the store are driven in this process, as the broker
drives them. If a change needs more calls, a test fails. If a change needs fewer, write down the new figure.
"""

from __future__ import annotations

import os
from functools import partial
from types import SimpleNamespace
from typing import cast

import dagorama_broker
from dagorama.api import broker_pb2 as pb
from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.proofs import Proofs
from dagorama_broker.engine.turns import Turn
from dagorama_broker.engine.worker_session import Session
from dagorama_broker.rpc.grants import GrantBuilder
from dagorama_broker.rpc.messages import blocks_of
from dagorama_broker.rpc.reports import read_results, take_results
from dagorama_broker.rpc.work import worker_info_of
from dagorama_broker.scheduler import Effects, Scheduler
from dagorama_broker.store.checksums import node_rows, outcome_rows
from tests.support.counting import calls
from tests.support.raw import FUNCTION, Dag, read_grant, results

NODES = 4_000
#: Calls for each node, as counted last.
MADE, GRANTED, RECORDED = 12.0, 2.2, 19.4
MORE = 1.02  #: what is done once for a message is spread over its nodes


class Driven:
    """A scheduler with one worker, between messages that come and go."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(1)
        self.now = 100.0
        self.worker = self.scheduler.connect(
            worker_info_of(pb.Hello(protocol=1, worker=os.urandom(16), name="w", slots=1)), (), self.now
        )
        self.broker = cast(Broker, SimpleNamespace(
            scheduler=self.scheduler, see_time=lambda: self.now,
            store=SimpleNamespace(near=True, has_large=lambda sha256: True),
        ))  # fmt: skip

    def step(self) -> Effects:
        """What the broker does between two waits, but for the disk."""
        self.now += 0.001
        self.scheduler.at(self.now, 0.0)
        self.scheduler.tick(self.now)
        changes, effects = self.scheduler.drain()
        list(node_rows(changes.nodes))
        list(outcome_rows(changes.outcomes))
        return effects

    def submit(self, request: pb.SubmitRequest) -> Effects:
        self.scheduler.submit(blocks_of([request]), {})
        return self.step()

    def grants(self, effects: Effects) -> list[pb.Grant]:
        builder = GrantBuilder(0, partial(Proofs(b"s" * 32).of, self.worker.info.id))
        for granted in effects.granted:
            builder.add(granted, b"\x01\x00arguments")
        builder.cut()
        return builder.take()

    def report(self, grants: list[pb.Grant]) -> Effects:
        given = [node for grant in grants for node in read_grant(0, grant.body)]
        session = cast(Session, SimpleNamespace(worker=self.worker, heard_last=0, staged_since={}))
        report = pb.Report(sequence=1, body=results(*given).SerializeToString())
        taking = take_results(self.broker, session, report.sequence, read_results(report), Turn())
        try:
            while taking.send(None) is None:
                pass  # others would have a turn now
        except StopIteration:
            return self.step()
        raise AssertionError("it waits for something")


def test_a_node_costs_no_more_calls_than_were_counted_last() -> None:
    driven = Driven()
    warm = driven.submit(Dag().submission(b"warm", functions=[FUNCTION]))
    driven.report(driven.grants(warm))
    request = Dag().submission(*[b"n"] * NODES, functions=[FUNCTION])
    made, effects = calls(dagorama_broker, driven.submit, request)
    granted = recorded = ran = 0
    while effects.granted:
        ran += len(effects.granted)
        more, grants = calls(dagorama_broker, driven.grants, effects)
        granted += more
        more, effects = calls(dagorama_broker, driven.report, grants)
        recorded += more
    assert ran == NODES
    each = {"made": made / NODES, "granted": granted / NODES, "recorded": recorded / NODES}
    assert each["made"] <= MADE * MORE, each
    assert each["granted"] <= GRANTED * MORE, each
    assert each["recorded"] <= RECORDED * MORE, each
