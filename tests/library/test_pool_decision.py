"""The decision of a pool: how many workers it starts and drains, for any demand and any members."""

from __future__ import annotations

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from dagorama.client.demand import Demand
from dagorama.pools.decision import Bounds, Decision, Member, decide
from dagorama.pools.engine import Phase

AFTER = 300.0


@st.composite
def bounds(draw: st.DrawFn) -> Bounds:
    least = draw(st.integers(0, 6))
    after = draw(st.sampled_from([None, AFTER]))
    return Bounds(draw(st.integers(1, 5)), least, draw(st.integers(max(1, least), 12)), after)


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    leaving_slots = draw(st.integers(0, 8))
    slots = draw(st.integers(leaving_slots, 60))
    leaving = draw(st.integers(ceil(leaving_slots / 5), 8))
    return Demand(slots, running_slots=leaving_slots, leaving_slots=leaving_slots, leaving=leaving)


idleness = st.none() | st.floats(0, 1_000)


@st.composite
def members(draw: st.DrawFn, most: int = 15) -> list[Member]:
    phases = draw(st.lists(st.tuples(st.sampled_from(Phase), idleness), max_size=most))
    return [Member(f"{number}", phase, idle) for number, (phase, idle) in enumerate(phases)]


def applied(decision: Decision, found: list[Member], start: int = 100) -> list[Member]:
    """The members after a decision was carried out."""
    kept = [member for member in found if member.id not in decision.drain]
    return kept + [Member(f"{start + number}", Phase.PENDING) for number in range(decision.start)]


@given(demands(), members(), bounds())
def test_a_pool_never_goes_above_its_most(demand: Demand, found: list[Member], bounds: Bounds) -> None:
    decision = decide(demand, found, bounds)
    assert decision.wanted <= bounds.most
    assert decision.start >= 0
    assert len(found) + decision.start <= max(len(found), bounds.most)


@given(demands(), members(), bounds())
def test_a_member_that_is_busy_or_was_just_idle_is_never_drained(
    demand: Demand, found: list[Member], bounds: Bounds
) -> None:
    decision = decide(demand, found, bounds)
    drained = [member for member in found if member.id in decision.drain]
    assert all(member.idle is not None and member.idle >= AFTER for member in drained)
    assert not (drained and bounds.drain_after is None)


@given(demands(), members(), bounds())
def test_a_pool_is_never_drained_below_what_it_wants(demand: Demand, found: list[Member], bounds: Bounds) -> None:
    decision = decide(demand, found, bounds)
    if decision.drain:
        assert len(applied(decision, found)) >= decision.wanted >= bounds.least
        assert decision.start == 0


@given(demands(), members(), bounds())
def test_the_newest_idle_members_are_drained(demand: Demand, found: list[Member], bounds: Bounds) -> None:
    idle = [member.id for member in found if member.idle is not None and member.idle >= AFTER]
    drained = decide(demand, found, bounds).drain
    assert list(drained) == idle[::-1][: len(drained)]


@given(st.integers(0, 60), members(), bounds())
def test_a_pool_ends_at_what_it_wants_and_then_does_nothing(slots: int, found: list[Member], bounds: Bounds) -> None:
    """With any members, a second decision about the same demand changes nothing: the pool does not oscillate."""
    demand = Demand(slots)
    first = decide(demand, found, bounds)
    after = applied(first, found)
    if len(found) <= first.wanted:
        assert len(after) == first.wanted
    second = decide(demand, after, bounds)
    assert (second.start, second.drain) == (0, ())


@given(st.integers(0, 60), members(), bounds())
def test_idle_surplus_goes_in_the_end_if_the_pool_drains(slots: int, found: list[Member], bounds: Bounds) -> None:
    bounds = bounds._replace(drain_after=AFTER)
    aged = [member._replace(idle=AFTER) for member in found]
    decision = decide(Demand(slots), aged, bounds)
    assert len(applied(decision, aged)) == decision.wanted


@given(demands(), members(), bounds())
def test_workers_that_stay_are_started_only_below_the_least(
    demand: Demand, found: list[Member], bounds: Bounds
) -> None:
    decision = decide(demand, found, bounds)
    assert decision.staying <= bounds.least
    if len(found) >= bounds.least and not demand.leaving:
        assert decision.staying == 0


def test_slots_are_shared_by_the_processes_of_a_worker() -> None:
    assert decide(Demand(9), [], Bounds(4, 0, 50)).start == 3
    assert decide(Demand(0), [], Bounds(4, 0, 50)).start == 0


def test_a_worker_that_leaves_is_replaced_while_it_finishes_its_node() -> None:
    """It runs a long node past its lifetime, and another node waits."""
    demand = Demand(2, running_slots=1, leaving_slots=1, leaving=1)
    assert decide(demand, [Member("1", Phase.RUNNING)], Bounds(1, 0, 8)).start == 1


def test_no_worker_is_started_for_the_node_that_a_leaving_one_finishes() -> None:
    demand = Demand(1, running_slots=1, leaving_slots=1, leaving=1)
    assert decide(demand, [Member("1", Phase.RUNNING)], Bounds(1, 0, 8)).start == 0
