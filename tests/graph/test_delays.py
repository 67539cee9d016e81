"""`later` and `at`: calls whose nodes start later than they could, in nodes and in clients."""

import asyncio
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from dagorama import DAGDefinition, State, at, cancel, dagorama, later, resolve, start, state
from dagorama.definition import instance_within
from dagorama.graph.node_batch import FunctionTable
from dagorama.graph.scope import AttemptScope
from dagorama_testing import inline

HOUR = 3_600.0
INSTANCE = b"i" * 16
#: The first of March 2027, 8 h UTC, in seconds since 1970.
MARCH = 1_803_888_000.0


class Reminders(DAGDefinition):
    @dagorama
    def entrypoint(self, user: str, seconds: float = HOUR) -> str:
        return self.joined(self.remind(user), later(self.remind, seconds)(user))

    @dagorama
    def remind(self, user: str, *, word: str = "hello") -> str:
        return f"{word} {user}"

    @dagorama
    async def remind_async(self, user: str) -> str:
        return f"hello {user}"

    @dagorama
    def joined(self, *texts: str) -> str:
        return ", ".join(texts)


class Auction(DAGDefinition):
    @dagorama
    def entrypoint(self, ends: datetime) -> str:
        return at(self.close, ends)()

    @dagorama
    def close(self) -> str:
        return "closed"


class Plain(DAGDefinition):
    def entrypoint(self) -> str:
        return self.work()

    @dagorama
    def work(self) -> str:
        return "done"


class Waiting(DAGDefinition):
    @dagorama
    async def entrypoint(self, user: str) -> str:
        return await later(self.remind, 60)(user)

    @dagorama
    async def remind(self, user: str) -> str:
        return f"hello {user}"


class TestInNodes:
    def test_the_call_runs_later_and_the_others_do_not(self) -> None:
        with inline() as world:
            instance, promise = Reminders()("ada")
            world.clock.advance(HOUR - 1)
            assert [run.at for run in world.runs_of(Reminders.remind)] == [0]
            assert resolve(instance, promise) is None
            world.clock.advance(1)
            assert [run.at for run in world.runs_of(Reminders.remind)] == [0, HOUR]
            assert resolve(instance, promise) == "hello ada, hello ada"

    def test_a_date_is_waited_for(self) -> None:
        with inline() as world:
            instance, promise = Auction()(world.clock.now() + timedelta(hours=2))
            assert resolve(instance, promise, timeout=None) == "closed"
            assert [run.at for run in world.runs_of(Auction.close)] == [pytest.approx(2 * HOUR)]

    def test_a_date_that_is_over_is_not(self) -> None:
        with inline() as world:
            instance, promise = Auction()(datetime(1960, 1, 1, tzinfo=UTC))
            assert resolve(instance, promise, timeout=None) == "closed"
            assert world.clock.passed == 0

    def test_async_methods_are_awaited_as_ever(self) -> None:
        with inline() as world:
            instance, promise = asyncio.run(Waiting()("ada"))
            assert resolve(instance, promise, timeout=None) == "hello ada"
            assert [run.at for run in world.runs_of(Waiting.remind)] == [60]

    def test_a_delayed_call_is_named_and_documented_as_the_method(self) -> None:
        with inline():
            instance, _ = Reminders()("ada")
            delayed = later(instance.remind, 1)
            assert delayed.__name__ == "remind"
            assert delayed.__qualname__ == "Reminders.remind"


class TestInClients:
    def test_a_method_of_an_instance_that_exists(self) -> None:
        with inline() as world:
            instance, _ = Plain()()
            promise = later(instance.work, 60)()
            assert state(instance, promise) is State.BACKOFF
            assert resolve(instance, promise, timeout=None) == "done"
            assert world.clock.passed == 60

    def test_an_entry_point_starts_later(self) -> None:
        with inline() as world:
            instance, promise = later(Reminders(), 60)("ada", seconds=0)
            assert state(instance, promise) is State.BACKOFF
            assert resolve(instance, promise, timeout=None) == "hello ada, hello ada"
            assert [run.at for run in world.runs_of(Reminders.entrypoint)] == [60]

    def test_an_entry_point_with_an_id_is_started_once(self) -> None:
        with inline() as world:
            soon, past = world.clock.now() + timedelta(minutes=1), datetime(2000, 1, 1, tzinfo=UTC)
            first, _ = at(start(Auction(), id="a"), soon)(past)
            instance, promise = at(start(Auction(), id="a"), soon)(past)
            assert instance.instance_id == first.instance_id
            assert resolve(instance, promise, timeout=None) == "closed"
            assert [run.at for run in world.runs] == pytest.approx([60, 60])

    def test_an_async_entry_point_starts_later(self) -> None:
        with inline() as world:
            instance, promise = asyncio.run(later(Waiting(), 30)("ada"))
            assert resolve(instance, promise, timeout=None) == "hello ada"
            assert [run.at for run in world.runs] == [30, 90]

    def test_what_is_delayed_can_be_cancelled(self) -> None:
        with inline() as world:
            instance, promise = later(Reminders(), HOUR)("ada")
            assert cancel(instance, promise) == 1
            world.clock.advance(2 * HOUR)
            assert world.runs == []

    def test_a_restart_of_the_broker_keeps_the_delay(self) -> None:
        with inline() as world:
            instance, promise = later(Reminders(), HOUR)("ada")
            world.clock.advance(HOUR - 10)
            world.restart_broker()
            assert state(instance, promise) is State.BACKOFF
            world.clock.advance(10)
            assert [run.at for run in world.runs_of(Reminders.entrypoint)] == [HOUR]


class TestOnTheWire:
    def test_only_the_delayed_nodes_have_an_entry_in_the_columns(self) -> None:
        attempt = AttemptScope(INSTANCE)
        inside: Any = instance_within(INSTANCE, Plain(), attempt)
        inside.work()
        later(inside.work, 1.5)()
        at(inside.work, datetime(2027, 3, 1, 9, tzinfo=timezone(timedelta(hours=1))))()
        (run,) = attempt.runs
        whole, last = run.to_message(FunctionTable()), run.to_message(FunctionTable(), 2, 3)
        assert (list(whole.delayed), list(whole.delay), list(whole.not_before)) == ([1, 2], [1.5, 0], [0, MARCH])
        assert (list(last.delayed), list(last.delay), list(last.not_before)) == ([0], [0], [MARCH])
        assert not run.to_message(FunctionTable(), 0, 1).delayed


class TestRefused:
    @pytest.mark.parametrize("seconds", [-1, "5", None, math.nan, math.inf, True])
    def test_seconds_that_are_no_number(self, seconds: Any) -> None:
        with pytest.raises(ValueError, match=r"seconds is .*: it must be a number of seconds from 0 to"):
            later(Reminders(), seconds)

    def test_a_date_without_a_time_zone(self) -> None:
        with pytest.raises(ValueError, match=r"when is datetime.*, which has no time zone, so each machine"):
            at(Auction(), datetime(2027, 3, 1, 9))

    @pytest.mark.parametrize("when", [5, "2027-03-01T09:00+01:00", None])
    def test_what_is_no_date(self, when: Any) -> None:
        with pytest.raises(TypeError, match="it must be a datetime with a time zone"):
            at(Auction(), when)

    def test_a_date_that_nothing_could_show(self) -> None:
        with pytest.raises(ValueError, match="it must be before the year 9999"):
            at(Auction(), datetime.max.replace(tzinfo=UTC))

    def test_an_entry_point_that_is_not_decorated(self) -> None:
        with pytest.raises(
            ValueError, match=r"the entry point of .*Plain is not decorated: it runs where it is called"
        ):
            later(Plain(), 5)

    @pytest.mark.parametrize("function", [len, lambda: 1, Reminders, 5, inline])
    def test_what_is_no_decorated_method(self, function: Any) -> None:
        with pytest.raises(TypeError, match=r"later\(\) takes a decorated method, as in later\(self.work, ...\)"):
            later(function, 5)

    def test_a_second_delay(self) -> None:
        with inline():
            instance, _ = Plain()()
            with pytest.raises(ValueError, match="is delayed twice: a call has one delay"):
                later(later(instance.work, 5), 5)
            with pytest.raises(ValueError, match="is delayed twice: a call has one delay"):
                at(later(Auction(), 5), datetime.now(UTC))

    def test_running_it_here(self) -> None:
        with inline():
            instance, _ = Plain()()
            call: Any = later(instance.work, 5)
            with pytest.raises(TypeError, match="is delayed, and greedy_execution would run it here"):
                call(greedy_execution=True)

    def test_wrong_arguments_at_the_call(self) -> None:
        with inline():
            instance, _ = Plain()()
            call: Any = later(instance.work, 5)
            with pytest.raises(TypeError, match=r"Plain.work\(\): too many positional arguments"):
                call(1)
