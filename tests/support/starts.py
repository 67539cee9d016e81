"""Workers on a simulated clock that really start nodes one after the other, and when they did."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush

from tests.support.driver import Hand, SchedulerDriver

_Place = tuple[Hand, int]


class Workshop:
    """Runs what its workers are granted, in the order of each slot, and notes each start."""

    def __init__(self, driver: SchedulerDriver, seconds: Callable[[], float], chance: random.Random) -> None:
        self.driver, self.seconds, self.chance = driver, seconds, chance
        self.starts: list[tuple[float, str]] = []  #: when each node was started, and its name
        self.fails = 0.0  #: the part of the attempts that fail
        self.late = 0.0  #: seconds by which the scheduler is ticked too late, at most, as by a busy machine
        self._hands: list[Hand] = []
        self._running: dict[_Place, str] = {}
        self._ends: list[tuple[float, int, _Place]] = []
        self._count = 0

    def open(self, workers: int, slots: int = 1) -> None:
        for _ in range(workers):
            self._count += 1
            self._hands.append(self.driver.worker(f"w{self._count}", slots))
        self._work()

    def times(self, prefix: str = "") -> list[float]:
        return [when for when, name in self.starts if name.startswith(prefix)]

    def run(self, seconds: float) -> None:
        """Let time pass: nodes end, others start, and the scheduler is ticked when it has asked for it."""
        driver, until = self.driver, self.driver.now + seconds
        self._work()
        while True:
            due = [until] if driver.next_tick is None else [until, driver.next_tick + self.chance.uniform(0, self.late)]
            due += [end[0] for end in self._ends[:1]]
            driver.pass_time(max(0.0, min(due) - driver.now))
            for hand in self._hands:
                driver.scheduler.record_contact(hand.worker, driver.now)
            if self._ends and self._ends[0][0] <= driver.now:
                self._end(heappop(self._ends)[2])
            else:
                driver.step()
            self._work()
            if driver.now >= until:
                return

    def vanish(self) -> None:
        """Let one worker lose its connection for good."""
        hand = self._hands.pop(self.chance.randrange(len(self._hands)))
        hand.vanish()
        self._ends = [end for end in self._ends if end[2][0] is not hand]
        self._running = {place: name for place, name in self._running.items() if place[0] is not hand}
        self._work()

    def _work(self) -> None:
        asked = True
        while asked:  # a node that one returns, another may be granted
            asked = max(map(self._answer, self._hands))
        for hand in self._hands:
            for slot in range(hand.presence.slots):
                if (hand, slot) not in self._running:
                    self._begin((hand, slot))

    def _answer(self, hand: Hand) -> bool:
        """Return what it is asked for and has not begun; return whether it was asked."""
        asked, hand.asked_back = hand.asked_back, []
        for name in asked:
            if name in hand.held and name not in self._running.values():
                hand.give_back(name)
        return bool(asked)

    def _begin(self, place: _Place) -> None:
        hand, slot = place
        name = next((each for each in hand.held if hand.slot_of[each] == slot), None)
        if name is not None:
            self._running[place] = name
            self.starts.append((self.driver.now, name))
            self._count += 1
            heappush(self._ends, (self.driver.now + self.seconds(), self._count, place))

    def _end(self, place: _Place) -> None:
        hand, name = place[0], self._running.pop(place)
        if name not in hand.held:
            return
        self.driver.scheduler.at(self.driver.now, self.driver.wall - self.driver.now)
        if self.chance.random() < self.fails:
            hand.fail(name)
        else:
            hand.complete(name, us=1_000)


def most_in_a_window(times: list[float], seconds: float) -> int:
    """Return the largest number of starts within any window of this length, however it is placed."""
    times = sorted(times)
    most = first = 0
    for place, when in enumerate(times):
        while when >= times[first] + seconds:
            first += 1
        most = max(most, place - first + 1)
    return most
