"""The decorator: what it accepts, what a call of it gives, and what it refuses at once."""

import asyncio
import linecache
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dagorama.calls.functions import from_wrapper
from dagorama.code_signature import calculate_function_hash
from dagorama.decorators import dagorama, on_failure
from dagorama.definition import DAGDefinition, DAGInstance, generate_instance_id
from dagorama.errors import NotInInstance, PromiseMisuse
from dagorama.models.promise import DAGPromise
from dagorama.retry import ExponentialRetry, StaticRetry
from tests.support.recording_broker import RecordingBroker


class Kinds(DAGDefinition):
    """Every way to write the decorator."""

    def entrypoint(self) -> object:
        return self.plain(1)

    @dagorama().syncfn
    def plain(self, number: int, *, twice: bool = False) -> int:
        """Doc of plain."""
        return number * 2 if twice else number

    @dagorama()
    def called(self, number: int) -> int:
        return number

    @dagorama
    def bare(self, number: int) -> int:
        return number

    @dagorama().asyncfn
    async def async_plain(self, number: int) -> int:
        return number

    @dagorama()
    async def async_called(self, number: int) -> int:
        return number

    @dagorama
    async def async_bare(self, number: int) -> int:
        return number

    @dagorama(queue_name="slow", taint_name="GPU", retry=StaticRetry(3, 0.5)).syncfn
    def ruled(self) -> None: ...

    @dagorama(retry=ExponentialRetry(2)).syncfn
    def patient(self) -> None: ...

    @dagorama().syncfn
    def echo(self, value: Any) -> Any:
        return value

    @dagorama().asyncfn
    async def async_echo(self, value: Any) -> Any:
        return value

    @dagorama().syncfn
    def hungry(self, *, greedy_execution: bool) -> str:
        return f"it was {greedy_execution}"

    @dagorama().syncfn
    def anything(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


@pytest.fixture
def instance(broker: RecordingBroker) -> Any:
    instance = DAGInstance(generate_instance_id(), Kinds())
    broker.requests.clear()
    return instance


@pytest.mark.parametrize("method", ["plain", "called", "bare"])
def test_a_sync_function_takes_the_decorator_in_every_form(broker: RecordingBroker, instance: Any, method: str) -> None:
    promise = getattr(instance, method)(1)
    assert isinstance(promise, DAGPromise)
    assert broker.only.id == promise.node_id
    assert not broker.only.function.is_async


@pytest.mark.parametrize("method", ["async_plain", "async_called", "async_bare"])
async def test_an_async_function_does_too(broker: RecordingBroker, instance: Any, method: str) -> None:
    promise = await getattr(instance, method)(1)
    assert isinstance(promise, DAGPromise)
    assert broker.only.id == promise.node_id
    assert broker.only.function.is_async


async def test_an_async_call_that_is_not_awaited_makes_no_node(broker: RecordingBroker, instance: Any) -> None:
    instance.async_plain(1).close()
    assert not broker.nodes


async def test_async_calls_can_be_gathered(broker: RecordingBroker, instance: Any) -> None:
    promises = await asyncio.gather(*(instance.async_plain(number) for number in range(3)))
    assert {promise.node_id for promise in promises} == broker.nodes.keys()


def test_the_wrong_kind_is_refused_with_the_right_one() -> None:
    async def later() -> None: ...

    def now() -> None: ...

    decorate: Any = dagorama()
    with pytest.raises(ValueError, match=r"later is written with `async def`: decorate it with @dagorama\(\).asyncfn"):
        decorate.syncfn(later)
    with pytest.raises(ValueError, match=r"now is not written with `async def`: decorate it with @dagorama\(\).syncfn"):
        decorate.asyncfn(now)


@pytest.mark.parametrize("thing", [staticmethod(len), int, 3])
def test_what_is_not_written_with_def_is_refused(thing: Any) -> None:
    with pytest.raises(ValueError, match="decorates a method written with `def`"):
        dagorama().syncfn(thing)


@pytest.mark.parametrize("again", [dagorama, dagorama(priority=1), dagorama().syncfn, on_failure])
def test_a_function_is_decorated_once(again: Any) -> None:
    @dagorama
    def once(self: object, number: int) -> int:
        return number

    inner: Any = once

    @wraps(inner)
    def wrapped(self: object, number: int) -> Any:
        return inner(self, number)

    for function in (inner, wrapped):
        with pytest.raises(ValueError, match=r"once is decorated twice: use one @dagorama or @on_failure"):
            again(function)


def test_a_decorated_function_keeps_its_name_its_doc_and_itself() -> None:
    plain: Any = Kinds.plain
    assert plain.__name__ == "plain"
    assert plain.__doc__ == "Doc of plain."
    assert plain.original_fn(None, 4, twice=True) == 8


def test_rules_travel_with_the_node(broker: RecordingBroker, instance: Any) -> None:
    instance.ruled()
    instance.patient()
    ruled, patient = (node.function for node in broker.nodes.values())
    assert (ruled.queue, ruled.taint, ruled.retry.max_attempts, ruled.retry.interval) == ("slow", "GPU", 3, 0.5)
    assert (patient.taint, patient.retry.max_attempts, patient.retry.base) == ("", 2, 2)
    assert not broker.called("plain")


def test_a_method_without_a_queue_has_its_own(broker: RecordingBroker, instance: Any) -> None:
    instance.plain(1)
    assert broker.only.function.queue == broker.only.function.name == f"{__name__}:Kinds.plain"
    assert not broker.only.function.HasField("retry")


def test_arguments_arrive_as_they_were_given(broker: RecordingBroker, instance: Any) -> None:
    instance.anything(1, [2], key={"three": 3})
    assert broker.only.call == ((1, [2]), {"key": {"three": 3}})


# --- greedy execution


@pytest.mark.parametrize("value", [0, "", None, False, [], {}, 5])
def test_greedy_execution_returns_the_result_unchanged(broker: RecordingBroker, instance: Any, value: object) -> None:
    result = instance.echo(value, greedy_execution=True)
    assert result is value
    assert not broker.nodes


@pytest.mark.parametrize("value", [np.zeros(3), pd.DataFrame({"a": [1, 2]})], ids=["array", "data frame"])
def test_greedy_execution_returns_arrays_and_data_frames_unchanged(instance: Any, value: object) -> None:
    assert instance.echo(value, greedy_execution=True) is value


@pytest.mark.parametrize("value", [0, None, "x"])
async def test_greedy_execution_of_an_async_function_is_awaited(instance: Any, value: object) -> None:
    assert await instance.async_echo(value, greedy_execution=True) is value


def test_greedy_execution_turned_off_is_a_call_like_any_other(broker: RecordingBroker, instance: Any) -> None:
    assert isinstance(instance.plain(1, greedy_execution=False), DAGPromise)
    assert broker.only.call == ((1,), {})


@pytest.mark.parametrize("value", [True, False])
def test_a_function_that_declares_greedy_execution_gets_it(broker: RecordingBroker, instance: Any, value: bool) -> None:
    assert isinstance(instance.hungry(greedy_execution=value), DAGPromise)
    assert broker.only.call == ((), {"greedy_execution": value})


# --- misuse


@pytest.mark.parametrize(
    ("args", "kwargs", "complaint"),
    [
        ((), {}, r"Kinds.plain\(\): missing a required argument: 'number'"),
        ((1, 2), {}, r"Kinds.plain\(\): too many positional arguments"),
        ((1,), {"thrice": True}, r"Kinds.plain\(\): got an unexpected keyword argument 'thrice'"),
        ((1,), {"number": 2}, r"Kinds.plain\(\): multiple values for argument 'number'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_the_call(
    broker: RecordingBroker, instance: Any, args: Any, kwargs: Any, complaint: str
) -> None:
    instance.plain(1)
    with pytest.raises(TypeError, match=complaint):
        instance.plain(*args, **kwargs)
    assert len(broker.nodes) == 1


def test_an_async_function_refuses_them_before_it_is_awaited(instance: Any) -> None:
    with pytest.raises(TypeError, match="missing a required argument"):
        instance.async_plain()


def test_ever_new_keywords_are_not_remembered_for_ever(instance: Any) -> None:
    for number in range(300):
        instance.anything(greedy_execution=False, **{f"key{number}": number})
    assert len(Kinds.anything._dagorama_decorated._shapes) <= 256  # type: ignore[attr-defined]


def test_a_call_on_a_definition_says_to_call_the_definition() -> None:
    with pytest.raises(NotInInstance, match=r"plain was called on a definition; call the definition, .*Kinds\("):
        Kinds().plain(1)


async def test_an_async_call_on_a_definition_says_to_call_the_definition() -> None:
    with pytest.raises(NotInInstance, match="on a definition"):
        await Kinds().async_plain(1)


def test_a_greedy_call_on_a_definition_too() -> None:
    with pytest.raises(NotInInstance):
        Kinds().echo(1, greedy_execution=True)


def test_a_decorated_function_outside_a_definition_says_so() -> None:
    @dagorama
    def alone(number: int) -> int:
        return number

    function: Any = alone
    with pytest.raises(NotInInstance, match="is a method of a DAGDefinition"):
        function(1)
    with pytest.raises(NotInInstance):
        function()


def test_a_promise_says_where_it_was_made(instance: Any) -> None:
    promise = instance.plain(1)
    with pytest.raises(PromiseMisuse, match=rf"`Kinds.plain`, made at {__file__}:\d+"):
        promise + 1


async def test_a_promise_of_a_gathered_call_says_where_it_was_made(instance: Any) -> None:
    (promise,) = await asyncio.gather(instance.async_plain(1))
    assert promise._place[0] == __file__


def test_a_promise_keeps_what_it_was_called_with(instance: Any) -> None:
    promise = instance.anything(1, key=2)
    assert promise.function_name == f"{__name__}:Kinds.anything"
    assert (list(promise.arguments.calltime_args), promise.arguments.calltime_kwargs) == ([1], {"key": 2})


# --- the code it was


VERSION = """
from typing import Any
from dagorama.decorators import dagorama, on_failure
from dagorama.definition import DAGDefinition

class Changing(DAGDefinition):
    def entrypoint(self) -> Any: ...

    @dagorama
    def work(self) -> int:
        return {number}
"""


def test_the_hash_is_of_the_code_that_was_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    files = [tmp_path / f"version{number}.py" for number in (1, 2)]
    for number, file in enumerate(files, 1):
        file.write_text(VERSION.format(number=number))
    one, two = (from_wrapper(import_module(file.stem).Changing.work) for file in files)
    files[0].write_text(VERSION.format(number=2))
    linecache.clearcache()
    assert two.hash != one.hash == calculate_function_hash(one.function)
