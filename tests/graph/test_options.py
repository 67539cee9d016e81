"""The options of a function: what they say on the wire, and what is refused where it is written."""

import asyncio
import math
from enum import StrEnum
from typing import Any

import pytest

from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, instance_within
from dagorama.errors import PromiseMisuse
from dagorama.graph.cache import Cache
from dagorama.graph.node_batch import FunctionTable
from dagorama.graph.options import Options
from dagorama.graph.rates import Limit, Rate
from dagorama.graph.scope import AttemptScope
from dagorama.models.outcome import outcome
from dagorama.retry import StaticRetry
from tests.support.recording_broker import RecordingBroker, block_of

INSTANCE = b"i" * 16


class Tenant(StrEnum):
    ONE = "one"


def both(tenant: str, *, region: str = "eu") -> str:
    return f"{tenant}/{region}"


class Ruled(DAGDefinition):
    def entrypoint(self) -> Any:
        return self.plain()

    @dagorama().syncfn
    def plain(self) -> int:
        return 1

    @dagorama(
        timeout=1.5, queue_timeout=60, priority=-3, max_concurrency=2, delay=0.25, max_deaths=1, stream_children=True
    ).syncfn
    def ruled(self) -> int:
        return 1

    @dagorama(max_concurrency=1, concurrency_key="tenant").syncfn
    def by_name(self, number: int, tenant: Any = "nobody", *rest: Any) -> int:
        return number

    @dagorama(max_concurrency=1, concurrency_key=both).syncfn
    def by_function(self, tenant: Any, *, region: Any = "eu") -> str:
        return f"{tenant} {region}"

    @dagorama(max_concurrency=1, concurrency_key=lambda text: text).asyncfn
    async def later(self, text: Any) -> Any:
        return text


@pytest.fixture
def attempt() -> AttemptScope:
    return AttemptScope(INSTANCE)


@pytest.fixture
def inside(attempt: AttemptScope) -> Any:
    return instance_within(INSTANCE, Ruled(), attempt)


def keys_of(attempt: AttemptScope) -> list[str | None]:
    return [node.key for run in attempt.runs for node in block_of(run)]


# --- on the wire


def test_options_travel_with_the_function(attempt: AttemptScope, inside: Any) -> None:
    inside.ruled()
    (node,) = block_of(attempt.runs[0])
    told = node.function
    assert (told.timeout, told.queue_timeout, told.priority, told.max_concurrency) == (1.5, 60, -3, 2)
    assert (told.delay, told.max_deaths, told.stream_children) == (0.25, 1, True)


def test_rates_and_limits_travel_with_the_function(attempt: AttemptScope) -> None:
    class Limited(DAGDefinition):
        def entrypoint(self) -> None: ...

        @dagorama(rate=Rate(10, per=0.5), rate_key="tenant", max_concurrency=3)
        def keyed(self, tenant: str) -> str:
            return tenant

        @dagorama(rate=Rate(1, per=60), max_concurrency=1, concurrency_key="tenant")
        def of_all(self, tenant: str) -> str:
            return tenant

        @dagorama(limit=Limit("api", rate=Rate(500, per=60), concurrency=20))
        def shares(self) -> None: ...

    inside: Any = instance_within(INSTANCE, Limited(), attempt)
    inside.keyed("seven")
    inside.of_all("eight")
    inside.shares()
    keyed, of_all, shares = [node.function for node in block_of(attempt.runs[0])]
    assert (keyed.rate.starts, keyed.rate.seconds, keyed.rate_by_key) == (10, 0.5, True)
    assert (keyed.max_concurrency, keyed.concurrency_of_all) == (3, True)
    assert (of_all.rate.starts, of_all.rate.seconds, of_all.rate_by_key) == (1, 60.0, False)
    assert (of_all.max_concurrency, of_all.concurrency_of_all) == (1, False)
    limit = shares.limit
    assert (limit.name, limit.rate.starts, limit.rate.seconds, limit.max_concurrency) == ("api", 500, 60.0, 20)
    assert keys_of(attempt) == ["seven", "eight", None]


def test_a_function_without_options_says_nothing_of_them(attempt: AttemptScope, inside: Any) -> None:
    inside.plain()
    (node,) = block_of(attempt.runs[0])
    told = {field.name for field, _ in node.function.ListFields()}
    assert told == {"name", "hash", "class_code", "queue", "key_id"}


class Unusual(StaticRetry):
    def is_final(self, exception: BaseException) -> bool:
        raise RuntimeError("it cannot say")


@pytest.mark.parametrize(
    ("options", "final"),
    [
        ({"timeout": 1, "retry": StaticRetry(3, 1, give_up_on=(TimeoutError,))}, True),
        ({"timeout": 1, "retry": StaticRetry(3, 1, give_up_on=(OSError,))}, True),  # which TimeoutError is
        ({"timeout": 1, "retry": StaticRetry(3, 1, retry_on=(ValueError,))}, True),
        ({"timeout": 1, "retry": StaticRetry(3, 1, retry_on=(TimeoutError,))}, False),
        ({"timeout": 1, "retry": StaticRetry(3, 1)}, False),
        ({"timeout": 1, "retry": Unusual(3, 1)}, False),
        ({"timeout": 1}, False),
        ({"retry": StaticRetry(3, 1, give_up_on=(TimeoutError,))}, False),
    ],
)
def test_whether_a_run_that_was_stopped_at_its_timeout_is_the_last_is_worked_out_here(
    attempt: AttemptScope, options: Any, final: bool
) -> None:
    class Timed(DAGDefinition):
        def entrypoint(self) -> None: ...

        @dagorama(**options)
        def one(self) -> int:
            return 1

    inside: Any = instance_within(INSTANCE, Timed(), attempt)
    inside.one()
    (node,) = block_of(attempt.runs[0])
    assert node.function.timeout_is_final is final


def test_the_same_code_under_other_options_is_another_function(attempt: AttemptScope) -> None:
    class Twice(DAGDefinition):
        def entrypoint(self) -> None: ...

        @dagorama(priority=1)
        def one(self) -> int:
            return 1

        two = dagorama(priority=2)(one.original_fn)

    inside: Any = instance_within(INSTANCE, Twice(), attempt)
    inside.one()
    inside.two()
    assert [node.function.priority for node in block_of(attempt.runs[0])] == [1, 2]


# --- concurrency keys


def test_a_parameters_value_is_the_key(attempt: AttemptScope, inside: Any) -> None:
    inside.by_name(1, "a")
    inside.by_name(number=1, tenant="b")
    inside.by_name(1)
    inside.by_name(1, 7)
    inside.by_name(1, Tenant.ONE)
    assert keys_of(attempt) == ["a", "b", "nobody", "7", "one"]


def test_a_function_makes_the_key_of_the_call_as_the_method_gets_it(attempt: AttemptScope, inside: Any) -> None:
    inside.by_function("a")
    inside.by_function(tenant="a", region="us")
    assert keys_of(attempt) == ["a/eu", "a/us"]


async def test_an_async_method_has_keys_too(attempt: AttemptScope, inside: Any) -> None:
    await asyncio.gather(inside.later("a"), inside.later("b"))
    assert keys_of(attempt) == ["a", "b"]


def test_a_direct_call_has_its_key(broker: RecordingBroker) -> None:
    instance: Any = Ruled()()[0]
    instance.by_name(1, "a")
    assert broker.called("by_name")[0].key == "a"


def test_keys_are_sent_once_and_named_by_number(attempt: AttemptScope, inside: Any) -> None:
    for tenant in ("a", "b", "a"):
        inside.by_name(1, tenant)
    inside.plain()
    message = attempt.runs[0].to_message(FunctionTable())
    assert (list(message.keys), list(message.key)) == (["a", "b"], [1, 2, 1, 0])
    tail = attempt.runs[0].to_message(FunctionTable(), 2)
    assert (list(tail.keys), list(tail.key)) == (["a"], [1, 0])
    assert not attempt.runs[0].to_message(FunctionTable(), 3).key


def test_pieces_of_a_run_weigh_their_keys(attempt: AttemptScope, inside: Any) -> None:
    for number in range(10):
        inside.by_name(1, f"{number:0500}")
    pieces = list(attempt.runs[0].pieces(5000))
    assert len(pieces) > 3
    assert all(attempt.runs[0].to_message(FunctionTable(), *piece).ByteSize() < 5000 for piece in pieces)


def test_a_key_does_not_depend_on_a_promise(attempt: AttemptScope, inside: Any) -> None:
    promise = inside.plain()
    for tenant in (promise, outcome(promise)):
        with pytest.raises(PromiseMisuse, match=r"key of Ruled.by_name is computed when it is called.*Ruled.plain"):
            inside.by_name(1, tenant)
        with pytest.raises(PromiseMisuse, match=r"key of Ruled.by_function is computed .*in an f-string needs"):
            inside.by_function(tenant)
    with pytest.raises(PromiseMisuse, match=r"key of Ruled\.later"):
        asyncio.run(inside.later(promise))
    assert len(attempt.runs[0]) == 1


def test_other_arguments_may_be_promises(attempt: AttemptScope, inside: Any) -> None:
    inside.by_name(inside.plain(), "a")
    assert keys_of(attempt) == [None, "a"]


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        (None, "is of type NoneType: it must be a str or an int"),
        (1.5, "is of type float"),
        (["a"], "is of type list"),
        ("ä" * 300, "has 600 bytes; 512 are allowed"),
        ("", "is empty: it must have 1 to 512 bytes"),
        ("a\0b", r"is 'a\\x00b': a NUL character is not allowed"),
        ("\ud800", r"is '\\ud800', which has a lone surrogate"),
    ],
)
def test_what_can_be_no_key_is_refused_at_the_call(
    inside: Any, attempt: AttemptScope, key: Any, complaint: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=complaint):
        inside.by_name(1, key)
    assert not attempt.runs


def test_what_the_function_raises_comes_through(inside: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        Dividing.call(inside)


class Dividing(Ruled):
    @dagorama(max_concurrency=1, concurrency_key=lambda number: str(1 // number))
    def divide(self, number: int) -> int:
        return number

    @staticmethod
    def call(inside: Any) -> None:
        instance_within(INSTANCE, Dividing(), inside._dagorama_scope).divide(0)


# --- what cannot be


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("queue_name", [b"q"]),
        ("taint_name", [1]),
        ("retry", [3, "static"]),
        ("timeout", [0, -1, "5", math.nan, math.inf, True]),
        ("queue_timeout", [0, -1, "5"]),
        ("priority", ["high", 1.5, None, True, 128, -129]),
        ("max_concurrency", [0, -1, 1.5, True, "2"]),
        ("delay", [-1, "5", None, math.nan]),
        ("max_deaths", [0, 1.5, True]),
        ("stream_children", [1, "yes", None]),
        ("concurrency_key", [3, b"key"]),
        ("rate", [10, "10/m", 1.5]),
        ("rate_key", [3, b"key"]),
        ("limit", ["openai", 5]),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(option: str, values: list[Any]) -> None:
    for value in values:
        if option == "queue_name":
            with pytest.raises(ValueError, match="decorates a method written with `def`"):
                dagorama(queue_name=value)
        else:
            with pytest.raises(ValueError, match=rf"^{option} is {value!r}"):
                dagorama(**{option: value})


@pytest.mark.parametrize("option", ["queue_name", "taint_name"])
def test_a_name_that_no_broker_takes_is_refused_where_it_is_written(option: str) -> None:
    names = {
        "a\0b": r"is 'a\\x00b': a NUL character is not allowed",
        "\ud800": r"is '\\ud800', which has a lone surrogate",
        "n" * 4097: "has 4097 characters: 0 to 4096 are allowed",
    }
    for name, reason in names.items():
        with pytest.raises(ValueError, match=f"^{option} {reason}"):
            Options(queue_name=name) if option == "queue_name" else Options(taint_name=name)


def test_an_unknown_option_is_refused() -> None:
    for name, remedy in (("time_out", "did you mean 'timeout'"), ("taint", "did you mean 'taint_name'"),
                         ("zzz", "it takes cache, codec, concurrency_key, delay, limit, max_conc")):  # fmt: skip
        with pytest.raises(TypeError, match=rf"^dagorama\(\) got an unexpected option '{name}'; {remedy}"):
            dagorama(**{name: 5})  # type: ignore[call-overload]


def test_an_endless_limit_is_none() -> None:
    for name in ("timeout", "queue_timeout"):
        with pytest.raises(ValueError, match=f"{name} is inf: give None, which is no limit"):
            dagorama(**{name: math.inf})  # type: ignore[call-overload]


def test_a_key_without_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="concurrency_key is given without max_concurrency"):
        dagorama(concurrency_key="tenant")


def test_keys_without_what_they_count_and_two_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="rate_key is given without rate"):
        dagorama(rate_key="tenant")
    with pytest.raises(ValueError, match="concurrency_key is 'a' and rate_key is 'b': a call has one key"):
        dagorama(max_concurrency=1, concurrency_key="a", rate=Rate(1, per=1), rate_key="b")
    with pytest.raises(ValueError, match=r"rate_key is 'missing', which is not a parameter of .*free"):

        @dagorama(rate=Rate(1, per=1), rate_key="missing")
        def free(self: Any) -> None: ...


@pytest.mark.parametrize(
    ("starts", "per", "sentence"),
    [
        (0, 1, "starts is 0: it must be a whole number from 1 to 2147483647"),
        (2**31, 1, "starts is 2147483648: it must be a whole number from 1 to 2147483647"),
        (1.5, 1, "starts is 1.5: it must be a whole number"),
        (True, 1, "starts is True: it must be a whole number"),
        (1, 0, "per is 0: it must be more than 0"),
        (1, -1, "per is -1: it must be a number of seconds"),
        (1, math.inf, "per is inf: it must be a number of seconds"),
        (1, 366 * 86_400 + 1, "it must be more than 0 and at most 31,622,400 seconds"),
        (1, "60", "per is '60': it must be a number of seconds"),
    ],
)
def test_a_rate_that_cannot_be_is_refused(starts: Any, per: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Rate(starts, per=per)


def test_a_limit_that_cannot_be_is_refused() -> None:
    five: Any = 5
    with pytest.raises(ValueError, match="name is 5: a limit's name is a text of 1 to 512 characters"):
        Limit(five, concurrency=1)
    for name, reason in (
        ("", "has 0 characters: 1 to 512 are allowed"),
        ("x" * 513, "has 513 characters"),
        ("a\0b", r"is 'a\\x00b': a NUL character is not allowed"),
        ("\ud800", r"is '\\ud800', which has a lone surrogate"),
    ):
        with pytest.raises(ValueError, match=f"^the name of a limit {reason}"):
            Limit(name, concurrency=1)
    with pytest.raises(ValueError, match="the limit 'api' limits nothing: give it a rate, a concurrency, or both"):
        Limit("api")
    with pytest.raises(ValueError, match="concurrency is 0: it must be a whole number from 1 to"):
        Limit("api", concurrency=0)
    with pytest.raises(ValueError, match="rate is 5: it must be a Rate, such as"):
        Limit("api", rate=five)


@pytest.mark.parametrize("key", ["self", "rest", "missing", "local"])
def test_a_key_that_is_no_parameter_is_refused_where_it_is_written(key: str) -> None:
    with pytest.raises(ValueError, match=rf"concurrency_key is '{key}', which is not a parameter of .*work"):

        @dagorama(max_concurrency=1, concurrency_key=key)
        def work(self: Any, tenant: str, *rest: Any) -> None:
            local = tenant
            print(local)


def test_a_cache_is_checked_where_it_is_written() -> None:
    for fields, text in (
        ({"ttl": 0}, "ttl is 0"), ({"ttl": -1}, "ttl is -1"), ({"scope": "world"}, "scope is 'world': it must be"),
        ({"key": 5}, "key is 5: it must be"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            Cache(**fields)
    with pytest.raises(ValueError, match="cache is True: it must be a Cache"):
        dagorama(cache=True)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="cache and stream_children are given"):
        dagorama(cache=Cache(), stream_children=True)
    with pytest.raises(ValueError, match=r"the key of the cache is 'nmae', which is not a parameter of .*work"):

        @dagorama(cache=Cache(key="nmae"))
        def work(self: object, name: str) -> str:
            return name
