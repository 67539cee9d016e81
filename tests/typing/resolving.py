"""resolve(): with a timeout it has a value, without one it may have none."""

from typing import Any, assert_type

from dagorama import DAGDefinition, DAGInstance, DAGPromise, batch, dagorama, resolve, resolve_all


class Task(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self) -> int:
        return 1


def resolving(unknown: DAGPromise[Any], anything: DAGInstance) -> None:
    instance, promise = Task()()
    assert_type(resolve(instance, promise), int | None)
    assert_type(resolve(instance, promise, timeout=5), int)
    assert_type(resolve(instance, promise, timeout=0.5), int)
    assert_type(resolve(instance, promise, timeout=None), int)
    assert_type(resolve(anything, unknown, timeout=None), Any)
    with batch():
        made = [Task()() for _ in range(3)]
    assert_type(resolve_all(made, timeout=5), list[int])


def maybe(timeout: float | None) -> int:
    instance, promise = Task()()
    return resolve(instance, promise, timeout=timeout)
