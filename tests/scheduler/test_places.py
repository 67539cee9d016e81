"""Places come out in their order, however they came in, and consecutive ones take no memory of their own."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from dagorama_broker.scheduler.places import KEY_BITS, KEY_MASK, Places
from dagorama_broker.scheduler.queues import order


@pytest.mark.parametrize("seed", range(40))
def test_places_come_out_in_their_order(seed: int) -> None:
    chance = random.Random(seed)
    places, expected, young = Places(), list[int](), order(1, 0)
    for _ in range(400):
        if expected and chance.random() < 0.45:
            first = min(expected)
            expected.remove(first)
            assert places.first() == first
            assert places.pop() == first & KEY_MASK
        elif expected and chance.random() < 0.2:
            late = chance.choice(expected) - chance.randrange(1, 4)
            if late not in expected:
                places.push(late)
                expected.append(late)
        else:
            young = max([young, *expected]) + chance.choice((1, 1, 1, 2, 1 << KEY_BITS))
            places.push(young)
            expected.append(young)
        middle = chance.choice(expected) if expected else young
        assert len(places) == len(expected)
        assert places.ahead_of(middle) == sum(place < middle for place in expected)
    left = [places.pop() for _ in range(len(places))]
    assert left == [place & KEY_MASK for place in sorted(expected)]


def test_a_place_that_comes_twice_comes_out_twice() -> None:
    places = Places()
    for place in (5, 6, 5, 6):
        places.push(place)
    assert [places.pop() for _ in range(4)] == [5, 5, 6, 6]


def test_the_first_arrival_is_among_those_that_came_in_their_order() -> None:
    places = Places()
    assert places.first_arrival() is None
    for place in (4, 5, 9, 2):
        places.push(place)
    assert (places.first_arrival(), places.last_arrival, places.first()) == (4, 9, 2)
    assert [places.pop_arrival(), places.pop_arrival(), places.pop_arrival()] == [4, 5, 9]
    assert (places.first_arrival(), len(places), places.pop()) == (None, 1, 2)


def test_an_instance_is_found_in_the_middle_of_a_range() -> None:
    places = Places()
    for instance in (3, 5):
        for key in range(10):
            places.push(order(instance, 100 * instance + key))
    assert [instance for instance in range(8) if places.holds(instance)] == [3, 5]
    places.push(order(2, 7))
    assert [instance for instance in range(8) if places.holds(instance)] == [2, 3, 5], "also one that came late"
    for _ in range(11):
        places.pop()
    assert [instance for instance in range(8) if places.holds(instance)] == [5]


def test_a_hundred_thousand_consecutive_places_take_the_memory_of_one() -> None:
    places = Places()
    places.push(order(1, 1))
    tracemalloc.start()
    try:
        for key in range(2, 100_000):
            places.push(order(1, key))
        assert tracemalloc.get_traced_memory()[0] < 1_000
    finally:
        tracemalloc.stop()
