"""run_inline() has the parameters and the value of the entry point."""

from typing import Any, assert_type

from dagorama import DAGDefinition, dagorama
from dagorama_testing import inline, run_inline, run_inline_async


class Task(DAGDefinition):
    @dagorama
    def entrypoint(self, number: int, text: str = "") -> list[int]:
        return [self.length(text)]

    @dagorama
    def length(self, text: str) -> int:
        return len(text)


class AsyncTask(DAGDefinition):
    @dagorama
    async def entrypoint(self, number: int) -> int:
        return number


class Unknown(DAGDefinition):
    def entrypoint(self, number):  # type: ignore[no-untyped-def]  # as users write it
        return number


def running(anything: DAGDefinition) -> None:
    assert_type(run_inline(Task(), 1, text="one"), list[int])
    assert_type(run_inline(AsyncTask(), 1), int)
    assert_type(run_inline(Unknown(), 1), Any)
    assert_type(run_inline(anything, 1), Any)
    run_inline(Task(), "1")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    run_inline(Task())  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def running_async() -> None:
    assert_type(await run_inline_async(Task(), 1), list[int])
    assert_type(await run_inline_async(AsyncTask(), 1), int)


def replacing() -> None:
    def other(self: Task, text: str) -> int:
        return 1

    with inline() as world:
        world.replace(Task.length, other)
        world.replace(Task.length, lambda self, text: 1)
        world.replace(Task.length, lambda self: 1)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
        assert_type(world.runs_of(Task.length)[0].attempt, int)
