"""Stories of failures: what callers and dependents get."""

from __future__ import annotations

import sys

from dagorama import DAGDefinition, Failure, dagorama, outcome, resolve
from tests.parity.stage import WAIT, Failed, Stage, awaited
from tests.parity.stories import story


class Refused(Exception):
    """An exception with fields, which survives the way to the client."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __repr__(self) -> str:
        return f"Refused({self.code})"


class Unpicklable(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__("two arguments")


class Breaking(DAGDefinition):
    """Breaks in the way that it is told."""

    @dagorama
    def entrypoint(self, how: str) -> int:
        return self.used(self.broken(how))

    @dagorama
    def broken(self, how: str) -> int:
        match how:
            case "division":
                return 1 // 0
            case "fields":
                raise Refused(7)
            case "unpicklable":
                raise Unpicklable(1, 2)
            case "chain":
                self._chained()
            case "exit":
                sys.exit(3)
            case "group":
                raise ExceptionGroup("several", [OSError("one"), KeyError("two")])
            case "arguments":
                self._called_wrongly()
            case "misuse":
                return 1 if self.used(1) else 2  # dagorama: ignore[DAG001] the mistake of the story
        return 0

    def _called_wrongly(self) -> None:
        self.used()  # type: ignore[call-overload]  # the mistake of the story

    def _chained(self) -> None:
        try:
            dict[str, int]()["nothing"]
        except KeyError as error:
            error.add_note("a note")
            raise LookupError("after another one") from error

    @dagorama
    def used(self, number: int) -> int:
        return number


def _broken(stage: Stage, how: str) -> Failed:
    found = stage.told(*Breaking()(how))
    assert isinstance(found, Failed)
    assert found.function.endswith("Breaking.broken")
    assert found.dependent.endswith("Breaking.entrypoint")
    return found


@story
def an_exception_reaches_all_that_need_the_value(stage: Stage) -> None:
    found = _broken(stage, "division")
    assert found.type == "builtins.ZeroDivisionError"
    assert "return 1 // 0" in found.traceback


@story
def exceptions_of_own_classes_are_rebuilt(stage: Stage) -> None:
    assert _broken(stage, "fields").cause == "Refused(7)"


@story
def an_exception_that_cannot_be_pickled_is_described(stage: Stage) -> None:
    assert _broken(stage, "unpicklable").message == "two arguments"


@story
def causes_and_notes_are_in_the_traceback(stage: Stage) -> None:
    assert "a note" in _broken(stage, "chain").traceback


@story
def sys_exit_fails_its_node(stage: Stage) -> None:
    assert _broken(stage, "exit").type == "builtins.SystemExit"


@story
def groups_of_exceptions_are_reported_whole(stage: Stage) -> None:
    assert "OSError: one" in _broken(stage, "group").traceback


@story
def wrong_arguments_fail_the_node_that_calls(stage: Stage) -> None:
    assert _broken(stage, "arguments").type == "builtins.TypeError"


@story
def a_promise_in_a_condition_fails_the_node(stage: Stage) -> None:
    assert _broken(stage, "misuse").type.endswith("PromiseMisuse")


class Lenient(DAGDefinition):
    @dagorama
    def entrypoint(self, texts: list[str]) -> list[str]:
        return self.told([outcome(self.number(text)) for text in texts])

    @dagorama
    def number(self, text: str) -> int:
        return int(text)

    @dagorama
    def told(self, found: list[int | Failure]) -> list[str]:
        return [f"{each.type}: {each.message}" if isinstance(each, Failure) else str(each) for each in found]


@story
def a_failure_may_be_taken_as_a_value(stage: Stage) -> None:
    found = stage.told(*Lenient()(["1", "one", "3"]))
    assert [each.startswith("builtins.ValueError") for each in found] == [False, True, False]


@story
def a_client_may_take_a_failure_as_a_value(stage: Stage) -> None:
    instance, promise = Breaking()("division")
    stage.include(instance)
    found = resolve(instance, outcome(promise), timeout=WAIT)
    assert isinstance(found, Failure)
    stage.note((found.type, found.function, found.attempts, found.cancelled, found.traceback))


class OneOfMany(DAGDefinition):
    @dagorama
    def entrypoint(self, texts: list[str]) -> int:
        return self.total([self.number(text) for text in texts])

    @dagorama
    def number(self, text: str) -> int:
        return int(text)

    @dagorama
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


@story
def one_failure_of_many_fails_the_sum_and_leaves_the_others(stage: Stage) -> None:
    assert isinstance(stage.told(*OneOfMany()(["1", "two", "3", "4"])), Failed)


class AsyncBreaking(DAGDefinition):
    @dagorama
    async def entrypoint(self) -> int:
        return await self.broken()

    @dagorama
    async def broken(self) -> int:
        raise ConnectionError("no answer")


@story
def an_async_function_fails_as_a_sync_one(stage: Stage) -> None:
    assert stage.told(*awaited(AsyncBreaking()())).message == "no answer"
