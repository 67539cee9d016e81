"""Failure as a value, waiting for many, and what can be done about an instance."""

from collections.abc import Callable
from typing import Any, assert_type

from dagorama import (
    CurrentNode,
    DAGDefinition,
    DAGInstance,
    DAGPromise,
    ExponentialRetry,
    Failure,
    Limit,
    Rate,
    Retried,
    RetryLater,
    State,
    StaticRetry,
    aresolve,
    as_completed,
    cancel,
    cancelled,
    current,
    dagorama,
    outcome,
    resolve,
    retry_failed,
    state,
)

API = Limit("api", rate=Rate(500, per=0.5), concurrency=3)


def by_tenant(tenant: str, *, fast: bool = False) -> str:
    return f"{tenant} {fast}"


class Task(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        assert_type(outcome(self.work("a")), int | Failure)
        self.kinds(outcome(self.work("a")))
        return self.rollup([outcome(self.work(tenant)) for tenant in "abc"])

    @dagorama(
        timeout=5,
        queue_timeout=0.5,
        priority=-1,
        max_concurrency=3,
        concurrency_key=by_tenant,
        delay=1,
        max_deaths=2,
        retry=StaticRetry(3, 1, retry_on=(OSError, ValueError), give_up_on=(FileNotFoundError,)),
    ).syncfn
    def work(self, tenant: str, *, fast: bool = False) -> int:
        if cancelled():
            raise RetryLater(5, "not now")
        return len(tenant)

    @dagorama(max_concurrency=1, concurrency_key="parts", retry=ExponentialRetry(3, give_up_on=(KeyError,))).syncfn
    def rollup(self, parts: list[int | Failure]) -> int:
        values = [part for part in parts if not isinstance(part, Failure)]
        assert_type(values, list[int])
        return sum(values)

    @dagorama(rate=Rate(10, per=60), rate_key=by_tenant, limit=API).syncfn
    def fetch(self, tenant: str) -> int:
        return len(tenant)

    @dagorama(concurrency_key=None).syncfn
    def kinds(self, part: int | Failure) -> str:
        match part:
            case Failure():
                assert_type(part.traceback, str)
                return part.message
            case _:
                assert_type(part, int)
                return str(part)


class Later(DAGDefinition):
    @dagorama().asyncfn
    async def entrypoint(self) -> list[int]:
        assert_type(outcome(await self.work()), int | Failure)
        return await self.rollup([outcome(await self.work())])

    @dagorama(timeout=5).asyncfn
    async def work(self) -> int:
        return 1

    @dagorama().asyncfn
    async def rollup(self, parts: list[int | Failure]) -> list[int]:
        return [part or 0 for part in parts if not isinstance(part, Failure)]


def waiting(unknown: DAGPromise[Any]) -> None:
    instance, promise = Task()()
    assert_type(outcome(promise), DAGPromise[int | Failure])
    assert_type(resolve(instance, outcome(promise)), int | Failure | None)
    assert_type(resolve(instance, outcome(promise), timeout=5), int | Failure)
    for each in as_completed(instance, [promise], timeout=5):
        assert_type(each, DAGPromise[int])
        assert_type(resolve(instance, each, timeout=0), int)
    for tolerant in as_completed(instance, (outcome(one) for one in [promise])):
        assert_type(resolve(instance, tolerant, timeout=0), int | Failure)
    assert_type([resolve(instance, one, timeout=None) for one in as_completed(instance, {unknown})], list[Any])


async def async_waiting() -> None:
    instance, promise = Task()()
    assert_type(await aresolve(instance, promise), int)
    assert_type(await aresolve(instance, outcome(promise), timeout=5), int | Failure)
    async for each in as_completed(instance, [promise], timeout=None):
        assert_type(await aresolve(instance, each), int)
    later, strings = await Later()()
    assert_type(await aresolve(later, strings), list[int])


def acting(instance: DAGInstance, promise: DAGPromise[int]) -> None:
    assert_type(state(instance, promise), State)
    assert_type(state(instance, promise).has_ended, bool)
    assert_type(cancel(instance), int)
    assert_type(cancel(instance, promise), int)
    assert_type(instance.cancel(), int)
    assert_type(instance.cancel(promise), int)
    assert_type(retry_failed(instance), Retried)
    assert_type(retry_failed(instance, promise), Retried)
    assert_type(instance.retry(), Retried)
    assert_type(instance.retry(promise), Retried)
    assert_type(instance.retry(promise, downstream=True, new_code=True).used_failures, int)
    assert_type(current(), CurrentNode)


def passing_on(key: Callable[..., str] | str | None, seconds: float | None) -> None:
    dagorama("queue", "taint", StaticRetry(1, 0), timeout=seconds, concurrency_key=key)
    dagorama(concurrency_key=lambda tenant, **_: f"{tenant}")
