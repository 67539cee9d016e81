"""Tests when the failure hook of a definition is called, and with which arguments."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from dagorama import (
    DAGDefinition,
    DAGInstance,
    DAGPromise,
    Failure,
    NodeFailed,
    State,
    StaticRetry,
    batch,
    cancel,
    dagorama,
    delete,
    on_failure,
    outcome,
    resolve,
    retry_failed,
    schedule,
    scheduled_for,
    start,
    state,
)
from dagorama.api.contract import FIRST_HOOK, is_hook
from dagorama.client.connection import connection
from dagorama.graph.hooks import has_hook
from dagorama_testing import SimulatedWorker, World, inline, run_inline

Told = list[tuple[str, Failure]]
told: Told = []


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    told.clear()


class Bad(Exception):
    """What nodes raise here."""


class Shapes(DAGDefinition):
    def __init__(self, who: str = "me") -> None:
        self.who = who

    @dagorama
    def entrypoint(self, number: int) -> int:
        return self.twice(self.measure(number))

    @dagorama
    def measure(self, number: int) -> int:
        if number < 0:
            raise Bad(f"no shape has {number} corners")
        return number

    @dagorama
    def twice(self, number: int) -> int:
        return 2 * number

    @on_failure(retry=StaticRetry(3, interval=10))
    def tell(self, failure: Failure) -> None:
        told.append((self.who, failure))


def hooks(world: World, instance: Any) -> list[Any]:
    return [run for run in world.runs if is_hook(instance.instance_id.bytes, run.node_id.bytes)]


def start_failing(number: int = -1) -> tuple[DAGInstance, DAGPromise[int]]:
    instance, promise = Shapes("Ann")(number)
    with pytest.raises(NodeFailed, match="corners"):
        resolve(instance, promise, timeout=60)
    return instance, promise


def test_a_hook_gets_the_failure_of_an_instance_that_has_ended_failed() -> None:
    with inline() as world:
        instance, promise = start_failing()
        world.run()

        ((who, failure),) = told
        assert who == "Ann", "the definition is constructed as for any other node"
        assert (failure.function.rpartition(":")[2], failure.type.rpartition(".")[2]) == ("Shapes.measure", "Bad")
        assert failure.message == "no shape has -1 corners"
        assert "raise Bad" in failure.traceback
        assert failure.attempts == 1
        assert failure.node_id == world.runs_of(Shapes.measure)[0].node_id
        assert failure.instance_id == instance.instance_id
        assert state(instance, promise) is State.FAILED
        with pytest.raises(NodeFailed, match="corners"):
            resolve(instance, promise)


def test_an_instance_that_ends_well_calls_no_hook() -> None:
    with inline() as world:
        instance, promise = Shapes()(3)
        assert resolve(instance, promise, timeout=60) == 6
        world.run()
        assert told == []
        assert hooks(world, instance) == []


def test_values_are_not_waited_for_until_the_hook_has_run() -> None:
    with inline() as world:
        world.fail(Shapes.tell, ConnectionError("no mail server"), times=2)
        start_failing()
        assert told == [], "the promise was resolved before the hook has succeeded"
        world.clock.advance(20)
        assert len(told) == 1


def test_the_first_failure_counts_and_the_hook_waits_for_the_end_of_all_others() -> None:
    class Wide(Shapes):
        @dagorama
        def entrypoint(self, number: int) -> int:
            self.later()
            self.measure(-5)
            return number

        @dagorama(retry=StaticRetry(2, interval=5))
        def later(self) -> None:
            raise Bad("later")

    with inline() as world:
        Wide()(1)
        world.run()
        assert [run.function.rpartition(".")[2] for run in world.runs][-2:] == ["later", "tell"]
        assert [failure.message for _, failure in told] == ["no shape has -5 corners"]


def test_a_failed_hook_is_retried_then_shown_and_not_called_again() -> None:
    with inline() as world:
        world.fail(Shapes.tell, ConnectionError("no mail server"), times=None)
        instance, _ = start_failing()
        world.run()
        assert len(hooks(world, instance)) == 3
        assert len({run.node_id for run in hooks(world, instance)}) == 1
        node = hooks(world, instance)[0].node_id
        assert connection().get_node(instance.instance_id.bytes, node.bytes).info.reason.startswith("ConnectionError")


def test_what_a_hook_calls_belongs_to_the_instance_and_calls_the_hook_no_second_time() -> None:
    class Asking(Shapes):
        @on_failure
        def tell(self, failure: Failure) -> None:
            told.append((self.who, failure))
            self.measure(-2)

    with inline() as world:
        Asking()(-1)
        world.run()
        assert [failure.message for _, failure in told] == ["no shape has -1 corners"]
        assert len(world.runs_of(Asking.measure)) == 2


def test_a_hook_is_called_again_if_retried_nodes_fail_again() -> None:
    with inline() as world:
        instance, _ = start_failing()
        world.run()
        world.fail(Shapes.measure, Bad("again"))
        retry_failed(instance)
        world.run()
        assert [failure.message for _, failure in told] == ["no shape has -1 corners", "again"]
        assert len({run.node_id for run in hooks(world, instance)}) == 2


def test_a_retry_that_goes_well_calls_no_hook() -> None:
    with inline() as world:
        instance, promise = start_failing()
        world.run()
        world.replace(Shapes.measure, lambda self, number: 4)
        retry_failed(instance)
        assert resolve(instance, promise, timeout=60) == 8
        world.run()
        assert len(told) == 1


def test_a_failure_that_was_retried_before_the_instance_ended_is_not_told() -> None:
    class Slow(Shapes):
        @dagorama
        def entrypoint(self, number: int) -> int:
            self.wait()
            return self.measure(number)

        @dagorama(delay=60)
        def wait(self) -> None: ...

    with inline() as world:
        world.fail(Slow.measure, Bad("once"))
        instance, promise = Slow()(3)
        with pytest.raises(NodeFailed, match="once"):
            resolve(instance, promise, timeout=5)
        retry_failed(instance)
        world.run()
        assert resolve(instance, promise) == 3
        assert told == []


def test_a_failed_hook_that_is_retried_tells_of_the_same_failure() -> None:
    with inline() as world:
        world.fail(Shapes.tell, ConnectionError("no mail server"), times=3)
        instance, _ = start_failing()
        world.run()
        node = hooks(world, instance)[0].node_id
        retry_failed(instance, DAGPromise(identifier=node))
        world.run()
        assert [failure.message for _, failure in told] == ["no shape has -1 corners"]


def test_a_cancelled_instance_calls_no_hook() -> None:
    class Waiting(Shapes):
        @dagorama
        def entrypoint(self, number: int) -> int:
            self.wait()
            return self.measure(number)

        @dagorama(delay=60)
        def wait(self) -> None: ...

    with inline() as world:
        instance, promise = Waiting()(-1)
        with pytest.raises(NodeFailed):
            resolve(instance, promise, timeout=5)
        cancel(instance)
        world.run()
        assert told == []

        other, value = Waiting()(1)
        assert resolve(other, value, timeout=5) == 1
        cancel(other)
        world.run()
        assert told == []


def test_a_running_instance_is_not_deleted_while_its_hook_has_not_ended() -> None:
    with inline(workers=[SimulatedWorker(exclude_queues=("pager",))]) as world:

        class Paged(Shapes):
            @on_failure(queue_name="pager")
            def tell(self, failure: Failure) -> None:
                told.append((self.who, failure))

        instance, promise = Paged()(-1)
        with pytest.raises(NodeFailed):
            resolve(instance, promise, timeout=5)
        world.run()
        world.clock.advance(30 * 86_400)
        assert state(instance, promise) is State.FAILED, "it is kept as long as its hook has not run"
        cancel(instance)
        delete(instance)
        assert told == []


def test_a_hook_runs_where_its_taint_is_tolerated_and_survives_the_broker() -> None:
    class Tainted(Shapes):
        @on_failure(taint_name="MAIL", timeout=5)
        def tell(self, failure: Failure) -> None:
            told.append((self.who, failure))

    with inline(workers=[SimulatedWorker(tolerations=())]) as world:
        Tainted("Bob")(-1)
        world.run()
        world.restart_broker()
        world.run()
        assert told == []
        world.add_worker(SimulatedWorker("mailer", tolerations=("MAIL",)))
        world.run()
        assert [who for who, _ in told] == ["Bob"]


def test_a_crash_of_the_broker_neither_loses_a_hook_nor_calls_it_twice() -> None:
    with inline() as world:
        Shapes()(-1)
        while world.run(1):
            world.restart_broker()
        assert len(told) == 1


def test_an_async_hook_of_an_async_instance() -> None:
    class Async(DAGDefinition):
        @dagorama
        async def entrypoint(self) -> int:
            await asyncio.sleep(0)
            raise Bad("async")

        @on_failure
        async def tell(self, failure: Failure) -> None:
            await asyncio.sleep(0)
            told.append(("async", failure))

    with inline() as world:
        asyncio.run(_started(Async()))
        world.run()
        assert [failure.message for _, failure in told] == ["async"]


async def _started(definition: Any) -> None:
    await definition()


def test_plain_entry_points_batches_and_ids_have_hooks_too() -> None:
    class Plain(DAGDefinition):
        def __init__(self, who: str) -> None:
            self.who = who

        def entrypoint(self, number: int) -> int:
            return self.measure(number)

        @dagorama
        def measure(self, number: int) -> int:
            raise Bad(f"{number}")

        @on_failure
        def tell(self, failure: Failure) -> None:
            told.append((self.who, failure))

    with inline() as world:
        with batch():
            Plain("a")(-1)
            Plain("b")(-1)
        start(Plain("c"), id="order-1", labels={"tenant": "7"})(-1)
        world.run()
        start(Plain("c"), id="order-1")(-1)
        world.run()
        assert [who for who, _ in told] == ["a", "b", "c"]


def test_an_instance_that_a_node_makes_calls_its_own_hook_and_then_the_one_of_the_other() -> None:
    class Outer(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            _, promise = Shapes("inner")(-1)
            return promise  # type: ignore[return-value]  # a worker waits for it

        @on_failure
        def tell(self, failure: Failure) -> None:
            told.append(("outer", failure))

    with inline() as world:
        Outer()()
        world.run()
        assert sorted(who for who, _ in told) == ["inner", "outer"]
        assert {failure.message for _, failure in told} == {"no shape has -1 corners"}
        assert len({failure.node_id for _, failure in told}) == 1


def test_a_failure_that_is_a_value_calls_the_hook_because_the_instance_counts_as_failed() -> None:
    class Tolerant(Shapes):
        @dagorama
        def entrypoint(self, number: int) -> int:
            return self.take(outcome(self.measure(number)))

        @dagorama
        def take(self, value: int | Failure) -> int:
            return 0 if isinstance(value, Failure) else value

    with inline() as world:
        instance, promise = Tolerant()(-1)
        assert resolve(instance, promise, timeout=5) == 0
        world.run()
        assert len(told) == 1


def test_instances_of_schedules_have_the_hook_and_know_their_time() -> None:
    class Nightly(Shapes):
        @on_failure
        def tell(self, failure: Failure) -> None:
            told.append((str(scheduled_for()), failure))

    with inline() as world:
        schedule(Nightly("night"), every=timedelta(seconds=60), id="nightly")(-1)
        world.clock.advance(125)
        assert len({who for who, _ in told}) == 2
        assert "None" not in {who for who, _ in told}


def test_a_hook_is_inherited_and_overridden_by_its_name() -> None:
    class Inherited(Shapes): ...

    class Overridden(Shapes):
        @on_failure
        def tell(self, failure: Failure) -> None:
            told.append(("overridden", failure))

    with inline() as world:
        Inherited("inherited")(-1)
        Overridden()(-1)
        world.run()
        assert [who for who, _ in told] == ["inherited", "overridden"]


def test_a_method_without_the_decorator_cannot_hide_a_hook() -> None:
    class Base(DAGDefinition):
        @dagorama
        def entrypoint(self) -> int:
            return 1

        @on_failure
        def tell(self, failure: Failure) -> None: ...

    def plain(self: Any, failure: Failure) -> None: ...

    mixin = type("Mixin", (), {"tell": plain})
    for bases, method in (((Base,), plain), ((Base,), dagorama(plain)), ((mixin, Base), None)):
        with pytest.raises(ValueError, match=r"tell hides the failure hook .*Base\.tell, and is not one: dec"):
            type("Sub", bases, {"tell": method} if method else {})

    class Silent(Base):
        tell = None  # type: ignore[assignment]  # as the error says

    assert not has_hook(Silent)
    assert has_hook(type("Named", (Base,), {"other": plain}))


def test_an_entry_point_cannot_be_the_hook() -> None:
    with pytest.raises(ValueError, match=r"Own\.entrypoint is the entry point, so it cannot be the failure hook"):

        class Own(DAGDefinition):
            @on_failure
            def entrypoint(self, failure: Failure) -> None: ...


def test_a_definition_has_one_hook() -> None:
    with pytest.raises(ValueError, match=r"Two has the failure hooks tell and page: .* overrides tell"):

        class Two(Shapes):
            @on_failure
            def page(self, failure: Failure) -> None: ...


def test_a_hook_takes_a_failure_and_nothing_else() -> None:
    with pytest.raises(ValueError, match=r"tell is a failure hook, which is called with a Failure and nothing else"):

        class Wrong(Shapes):
            @on_failure  # type: ignore[arg-type]  # that is the subject
            def tell(self, failure: Failure, more: int) -> None: ...


@pytest.mark.parametrize("options", [{"timeout": -1}, {"queue_name": 5}, {"retry": "often"}])
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        on_failure(**options)


def test_a_json_definition_has_a_hook() -> None:
    class Json(DAGDefinition, codec="json"):
        @dagorama
        def entrypoint(self, number: int) -> int:
            raise Bad("json")

        @on_failure
        def tell(self, failure: Failure) -> None:
            told.append(("json", failure))

    with inline() as world:
        Json()(1)
        world.run()
        assert [failure.message for _, failure in told] == ["json"]


def test_a_definition_that_was_constructed_with_too_much_is_refused() -> None:
    with inline(), pytest.raises(ValueError, match=r"failure hook tell and was constructed with .* at most 64 KiB"):
        Shapes("x" * 70_000)(1)


def test_run_inline_runs_the_hook_too() -> None:
    with pytest.raises(Bad):
        run_inline(
            Shapes(),
            -1,
        )
    assert len(told) == 1


def test_the_id_of_a_node_says_whether_it_is_a_hook() -> None:
    instance = UUID(int=5).bytes
    assert is_hook(instance, instance[:12] + FIRST_HOOK.to_bytes(4, "big"))
    assert not is_hook(instance, instance[:12] + (FIRST_HOOK - 1).to_bytes(4, "big"))
    assert not is_hook(instance, bytes([1]) + instance[1:12] + FIRST_HOOK.to_bytes(4, "big"))
