"""Functions with a cache, from the call to the value: keys, scopes, refreshing, failures, and a broker that lies."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from dagorama import (
    Cache,
    DAGDefinition,
    DAGInstance,
    DAGPromise,
    NodeFailed,
    State,
    TamperedValue,
    UncacheableArgument,
    dagorama,
    refresh,
    resolve,
    start,
    state,
)
from dagorama.client.connection import connection
from dagorama_broker.rpc.grants import GrantBuilder
from dagorama_broker.scheduler.caching import Caching
from dagorama_testing import World, inline


@pytest.fixture
def world() -> Iterator[World]:
    with inline() as world:
        yield world


def value(world: World, started: tuple[DAGInstance, DAGPromise[Any]]) -> Any:
    world.run()
    return resolve(*started)


@dataclass
class Text:
    text: str


PROGRAM = """
from dagorama import Cache, DAGDefinition, dagorama

class Changing(DAGDefinition):
    @dagorama(cache=Cache())
    def entrypoint(self) -> int:
        return {answer}
"""


class Words(DAGDefinition):
    def __init__(self, language: str = "en") -> None:
        self.language = language

    @dagorama
    def entrypoint(self, text: str, times: int = 1) -> list[str]:
        return self.joined([self.loud(Text(text)) for _ in range(times)])

    @dagorama(cache=Cache(ttl=60))
    def loud(self, text: Text) -> str:
        return f"{self.language}:{text.text.upper()}"

    @dagorama
    def joined(self, texts: list[str]) -> list[str]:
        return texts


class TestHits:
    def test_equal_calls_run_once(self, world: World) -> None:
        assert value(world, Words()("a", 5)) == ["en:A"] * 5
        assert value(world, Words()("a", 5)) == ["en:A"] * 5
        assert len(world.runs_of(Words.loud)) == 1

    def test_other_arguments_run(self, world: World) -> None:
        assert value(world, Words()("a")) + value(world, Words()("b")) == ["en:A", "en:B"]

    def test_other_constructor_arguments_run(self, world: World) -> None:
        assert value(world, Words()("a")) + value(world, Words("de")("a")) == ["en:A", "de:A"]

    def test_a_value_is_used_until_its_time_to_live_is_over(self, world: World) -> None:
        for seconds in (0, 59, 2):
            world.clock.advance(seconds)
            assert value(world, Words()("a")) == ["en:A"]
        assert len(world.runs_of(Words.loud)) == 2

    def test_nothing_is_left_for_the_next_test(self) -> None:
        for _ in range(2):
            with inline() as world:
                value(world, Words()("a"))
                assert len(world.runs_of(Words.loud)) == 1

    def test_the_node_tells_whose_value_it_has(self, world: World) -> None:
        class Twice(DAGDefinition):
            @dagorama(cache=Cache())
            def entrypoint(self) -> int:
                return 7

        (first, one), (second, other) = Twice()(), Twice()()
        world.run()
        details = connection().get_node(second.instance_id.bytes, other.node_id)
        assert (details.info.cached.node, details.info.cached.instance) == (one.node_id, first.instance_id.bytes)
        assert not connection().get_node(first.instance_id.bytes, one.node_id).info.HasField("cached")
        found = connection().list_cache()
        assert (found.hits, found.misses, [each.values for each in found.functions]) == (1, 1, [1])

    def test_async_functions_and_json_functions_share_values_too(self, world: World) -> None:
        class Json(DAGDefinition, codec="json"):
            @dagorama().asyncfn
            async def entrypoint(self) -> list[int]:
                return self.both([await self.slow(1), await self.slow(1)])

            @dagorama(cache=Cache()).asyncfn
            async def slow(self, number: int) -> int:
                await asyncio.sleep(0)
                return number + 1

            @dagorama
            def both(self, numbers: list[int]) -> list[int]:
                return numbers

        assert value(world, asyncio.run(Json()())) == [2, 2]
        assert len(world.runs_of(Json.slow)) == 1

    def test_a_value_that_names_other_nodes_is_shared(self, world: World) -> None:
        class Tree(DAGDefinition):
            @dagorama(cache=Cache())
            def entrypoint(self, depth: int) -> list[Any]:
                return [self.entrypoint(depth - 1), self.entrypoint(depth - 1)] if depth else []

        assert value(world, Tree()(3)) == value(world, Tree()(3)) == [[[[], []], [[], []]], [[[], []], [[], []]]]
        assert len(world.runs_of(Tree.entrypoint)) == 4


class TestKeys:
    def test_a_parameter_can_be_the_key(self, world: World) -> None:
        class Keyed(DAGDefinition):
            @dagorama(cache=Cache(key="name"))
            def entrypoint(self, name: str, sender: object = None) -> str:
                return name

        assert value(world, Keyed()("a", object())) == value(world, Keyed()(sender=object(), name="a")) == "a"
        assert len(world.runs_of(Keyed.entrypoint)) == 1

    def test_arguments_after_a_self_without_a_name_count(self, world: World) -> None:
        class Wrapped(DAGDefinition):
            @dagorama
            def entrypoint(self) -> list[Any]:
                return [self.last(1), self.last(2), self.last(2)]

            @dagorama(cache=Cache())
            def last(*args: Any) -> Any:  # as a decorator leaves it that forgets functools.wraps
                return args[-1]

        assert value(world, Wrapped()()) == [1, 2, 2]
        assert len(world.runs_of(Wrapped.last)) == 2

    def test_a_function_can_compute_the_key(self, world: World) -> None:
        class Folded(DAGDefinition):
            @dagorama(cache=Cache(key=lambda name, times=2: (name.lower(), times)))
            def entrypoint(self, name: str, times: int = 2) -> str:
                return name

        assert value(world, Folded()("A")) == value(world, Folded()("a", 2)) == "A"
        assert value(world, Folded()("a", 3)) == "a"

    def test_an_argument_that_cannot_be_compared_fails_the_node_at_its_first_run(self, world: World) -> None:
        class Bad(DAGDefinition):
            @dagorama(cache=Cache())
            def entrypoint(self, them: list[object]) -> int:
                return len(them)

        with pytest.raises(NodeFailed, match=r"argument 'them'\[1\] is of type builtins.object") as caught:
            value(world, Bad()([1, object()]))
        assert isinstance(caught.value.__cause__, UncacheableArgument)
        assert caught.value.attempts == 1

    def test_an_argument_that_cannot_be_read_fails_the_node_and_not_its_call(self, world: World) -> None:
        class Unreadable:
            """A record of another library, which fails when it is read."""

            __struct_fields__ = ("number",)

            @property
            def number(self) -> int:
                raise ZeroDivisionError

        class Bad(DAGDefinition):
            @dagorama
            def entrypoint(self, by_promise: bool) -> int:
                return self.count([self.made() if by_promise else Unreadable()])

            @dagorama
            def made(self) -> Unreadable:
                return Unreadable()

            @dagorama(cache=Cache())
            def count(self, them: list[Unreadable]) -> int:
                return len(them)

        for by_promise in (False, True):
            with pytest.raises(
                NodeFailed, match=r"count failed .*argument 'them'\[0\] is of type .*Unreadable"
            ) as caught:
                value(world, Bad()(by_promise))
            assert isinstance(caught.value.__cause__, UncacheableArgument)
            assert "Cache(key=...)" in f"{caught.value}"

    def test_definitions_share_values_of_a_function_if_the_scope_says_so(self, world: World) -> None:
        class Base(DAGDefinition):
            def __init__(self, number: int = 0) -> None:
                self.number = number

            @dagorama(cache=Cache(scope="function"))
            def entrypoint(self, number: int) -> int:
                return number

        assert value(world, Base(1)(5)) == value(world, Base(2)(5)) == 5
        assert len(world.runs_of(Base.entrypoint)) == 1

    def test_instances_share_none_if_the_scope_says_so(self, world: World) -> None:
        class Own(DAGDefinition):
            @dagorama
            def entrypoint(self) -> list[int]:
                return self.both([self.one(1), self.one(1)])

            @dagorama(cache=Cache(scope="instance"))
            def one(self, number: int) -> int:
                return number

            @dagorama
            def both(self, numbers: list[int]) -> list[int]:
                return numbers

        assert value(world, Own()()) == value(world, Own()()) == [1, 1]
        assert len(world.runs_of(Own.one)) == 2

    def test_other_code_has_other_keys(self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        for answer in (1, 2):
            (tmp_path / f"v{answer}").mkdir()
            (tmp_path / f"v{answer}" / "changing.py").write_text(PROGRAM.format(answer=answer))
        for answer in (1, 2):
            monkeypatch.syspath_prepend(tmp_path / f"v{answer}")
            monkeypatch.delitem(sys.modules, "changing", raising=False)
            assert value(world, import_module("changing").Changing()()) == answer


class TestAnnouncedKeys:
    """The caller computes the key of a call with values: a cached value needs no worker, and no worker is asked."""

    @pytest.fixture
    def granted(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
        """For each grant: whether something is known of the key, and whether the caller has announced it."""
        add, seen = GrantBuilder.add_cached, list[tuple[bool, bool]]()

        def seeing(builder: GrantBuilder, found: Any, announced: bytes) -> None:
            seen.append((found is not False, bool(announced)))
            add(builder, found, announced)

        monkeypatch.setattr(GrantBuilder, "add_cached", seeing)
        return seen

    def test_a_call_with_values_is_granted_once_and_equal_ones_never(
        self, world: World, granted: list[tuple[bool, bool]]
    ) -> None:
        assert value(world, Words()("a", 3)) == ["en:A"] * 3
        assert value(world, Words()("a", 3)) == ["en:A"] * 3
        assert granted == [(True, True)]

    def test_a_caller_has_its_value_without_a_worker(self, world: World, granted: list[tuple[bool, bool]]) -> None:
        instance, promise = Words()("a")
        value(world, (instance, promise))
        granted.clear()
        assert resolve(instance, instance.loud(Text("a"))) == "en:A"
        assert granted == []

    def test_a_call_with_promises_is_granted_twice(self, world: World, granted: list[tuple[bool, bool]]) -> None:
        class Later(DAGDefinition):
            @dagorama
            def entrypoint(self) -> int:
                return self.twice(self.one())

            @dagorama
            def one(self) -> int:
                return 1

            @dagorama(cache=Cache())
            def twice(self, number: int) -> int:
                return 2 * number

        assert value(world, Later()()) == 2
        assert granted == [(False, False), (True, False)]

    def test_a_key_function_runs_in_workers_only(self, world: World, granted: list[tuple[bool, bool]]) -> None:
        class Folded(DAGDefinition):
            @dagorama(cache=Cache(key=lambda name: name.lower()))
            def entrypoint(self, name: str) -> str:
                return name

        assert value(world, Folded()("A")) == "A"
        assert granted == [(False, False), (True, False)]

    def test_values_that_change_on_the_way_share_a_value_all_the_same(
        self, world: World, granted: list[tuple[bool, bool]]
    ) -> None:
        class Json(DAGDefinition, codec="json"):
            @dagorama(cache=Cache())
            def entrypoint(self, number: float) -> float:
                return number + 1

        assert [value(world, Json()(number)) for number in (2.0, 2)] == [3.0, 3.0]
        assert len(world.runs_of(Json.entrypoint)) == 1
        assert granted == [(True, True), (True, True), (True, False)]

    def test_a_refreshed_call_announces_none(self, world: World, granted: list[tuple[bool, bool]]) -> None:
        value(world, start(Words(), refresh=True)("a"))
        assert granted == [(False, False)]


class TestRefreshing:
    def test_a_call_can_run_anyway_and_replace_the_value(self, world: World) -> None:
        seen: list[int] = []

        class Fresh(DAGDefinition):
            @dagorama
            def entrypoint(self, again: bool) -> int:
                return refresh(self.count)() if again else self.count()

            @dagorama(cache=Cache())
            def count(self) -> int:
                seen.append(1)
                return len(seen)

        assert [value(world, Fresh()(again)) for again in (False, False, True, False)] == [1, 1, 2, 2]

    def test_an_instance_can_be_refreshed_with_all_that_it_creates(self, world: World) -> None:
        for fresh in (False, True, False):
            assert value(world, start(Words(), refresh=fresh)("a")) == ["en:A"]
        assert len(world.runs_of(Words.loud)) == 2

    def test_a_later_call_on_an_instance_can_be_refreshed(self, world: World) -> None:
        instance, promise = Words()("a")
        assert value(world, (instance, promise)) == ["en:A"]
        assert value(world, (instance, refresh(instance.loud)(Text("a")))) == "en:A"
        assert len(world.runs_of(Words.loud)) == 2

    def test_what_cannot_be_refreshed_is_said(self) -> None:
        with pytest.raises(TypeError, match=r"refresh\(\) takes a decorated method"):
            refresh(len)
        with pytest.raises(TypeError, match="would run it here"):
            refresh(Words.loud)(Words(), Text("a"), greedy_execution=True)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="refresh is 1"):
            start(Words(), refresh=1)  # type: ignore[call-overload]


class TestFailures:
    def test_they_are_not_kept(self, world: World) -> None:
        world.fail(Words.loud, ValueError("no"), times=1)
        with pytest.raises(NodeFailed):
            value(world, Words()("a"))
        assert value(world, Words()("a")) == ["en:A"]

    def test_if_the_first_of_two_fails_the_second_runs(self, world: World) -> None:
        class Two(DAGDefinition):
            @dagorama(cache=Cache())
            def entrypoint(self) -> int:
                return 1

        world.fail(Two.entrypoint, ValueError("no"), times=1)
        started = [Two()(), Two()()]
        world.run()
        assert [state(*each) for each in started] == [State.FAILED, State.COMPLETED]


class Folded(DAGDefinition):
    """A definition whose callers do not know the cache keys."""

    @dagorama(cache=Cache(key=lambda text: text.lower()))
    def entrypoint(self, text: str) -> str:
        return text.lower()


class TestLies:
    """The broker offers a node that does not have the value, or no node at all; a worker believes only a proof."""

    @pytest.fixture
    def offered(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
        add, lie = GrantBuilder.add_cached, dict[str, Any]()

        def lying(builder: GrantBuilder, found: Any, announced: bytes) -> None:
            row = lie["row"]._replace(**lie["with"]) if lie and not isinstance(found, bool) else found
            add(builder, row, announced)

        monkeypatch.setattr(GrantBuilder, "add_cached", lying)

        def offer(row: Any, **changed: Any) -> None:
            lie.update(row=row, **{"with": changed})

        return offer

    def test_the_value_of_other_arguments_is_refused(self, world: World, offered: Callable[..., None]) -> None:
        value(world, Folded()("a"))
        value(world, Folded()("b"))
        offered(cached_rows(world)[0])
        with pytest.raises(NodeFailed) as caught:
            value(world, Folded()("b"))
        assert isinstance(caught.value.__cause__, TamperedValue)

    def test_another_node_with_the_right_proof_is_refused(self, world: World, offered: Callable[..., None]) -> None:
        value(world, Folded()("a"))
        (row,) = cached_rows(world)
        offered(row, node_id=row.node_id[:-1] + b"\x09")
        with pytest.raises(NodeFailed) as caught:
            value(world, Folded()("a"))
        assert isinstance(caught.value.__cause__, TamperedValue)

    def test_a_proof_under_a_key_that_is_not_held_is_a_miss(self, world: World, offered: Callable[..., None]) -> None:
        value(world, Folded()("a"))
        (row,) = cached_rows(world)
        offered(row, proof=bytes(40))
        assert value(world, Folded()("A")) == "a"
        assert len(world.runs_of(Folded.entrypoint)) == 2


class TestLiesWithoutAWorker:
    """The broker completes a node with a value that is not the one of its cache key; no reader believes it."""

    @pytest.fixture
    def wrong(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the broker find the oldest cached value for each node."""
        value(world, Words()("a"))
        (row,) = cached_rows(world)
        monkeypatch.setattr(Caching, "find", lambda *_: row)

    @pytest.mark.usefixtures("wrong")
    def test_a_node_that_gets_it_as_an_argument_fails(self, world: World) -> None:
        with pytest.raises(NodeFailed) as caught:
            value(world, Words()("b"))
        assert isinstance(caught.value.__cause__, TamperedValue)

    @pytest.mark.usefixtures("wrong")
    def test_resolve_refuses_it(self, world: World) -> None:
        instance, _ = Words()("b")
        with pytest.raises(TamperedValue):
            resolve(instance, instance.loud(Text("b")))


def cached_rows(world: World) -> list[Any]:
    return list(world._driver.broker._broker.scheduler.graph.caching.entries.values())
