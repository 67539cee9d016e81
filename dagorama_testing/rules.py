"""The rules of a test for the nodes of some functions, and the record of their runs."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from inspect import iscoroutinefunction
from math import inf
from typing import Any

from dagorama.calls.functions import from_wrapper
from dagorama_testing.records import NodeRun


class _Rule:
    """Something that happens in the next `times` runs of a function."""

    def __init__(self, times: float) -> None:
        self._left = times

    def applies(self) -> bool:
        """Return whether it happens now; count it."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True


class _Failing(_Rule):
    def __init__(self, error: BaseException | type[BaseException], times: float) -> None:
        super().__init__(times)
        self._error = error

    def raise_it(self) -> None:
        # Each attempt has a traceback of its own.
        error = self._error
        raise error() if isinstance(error, type) else copy(error)


class Rules:
    """The rules of one world, by function."""

    def __init__(self) -> None:
        self._failing: dict[Callable[..., Any], _Failing] = {}
        self._replaced: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._deaths: dict[Callable[..., Any], _Rule] = {}
        self._losses: dict[Callable[..., Any], _Rule] = {}
        self._hangs: dict[Callable[..., Any], _Rule] = {}
        self.runs: list[tuple[Callable[..., Any], NodeRun]] = []  #: in the order in which they began

    # --- for the test ---------------------------------------------------------------------------------

    def fail(self, method: Any, error: BaseException | type[BaseException], times: int | None) -> None:
        if not isinstance(error, BaseException) and not (isinstance(error, type) and issubclass(error, BaseException)):
            raise TypeError(f"fail() takes an exception to raise, not {error!r}")
        self._failing[function_of("fail()", method)] = _Failing(error, _checked("fail()", times))

    def replace(self, method: Any, by: Callable[..., Any]) -> None:
        function = function_of("replace()", method)
        if iscoroutinefunction(by) and not iscoroutinefunction(function):
            raise TypeError(f"replace() got an async function for {function.__qualname__}, which is a sync one")
        self._replaced[function] = by

    def die(self, method: Any, times: int | None) -> None:
        self._deaths[function_of("die()", method)] = _Rule(_checked("die()", times))

    def lose(self, method: Any, times: int | None) -> None:
        self._losses[function_of("lose()", method)] = _Rule(_checked("lose()", times))

    def hang(self, method: Any, times: int | None) -> None:
        function = function_of("hang()", method)
        if not from_wrapper(method).options.timeout:
            raise ValueError(f"hang() takes a method with a timeout: {function.__qualname__} would never end")
        self._hangs[function] = _Rule(_checked("hang()", times))

    def runs_of(self, method: Any) -> list[NodeRun]:
        function = function_of("runs_of()", method)
        return [run for of, run in self.runs if of is function]

    # --- for workers ----------------------------------------------------------------------------------

    @property
    def has_breakdowns(self) -> bool:
        """Whether there are rules for deaths, losses or hangs, so that functions must be found before they run."""
        return bool(self._deaths or self._losses or self._hangs)

    def dies(self, function: Callable[..., Any]) -> bool:
        """Return whether the child process dies when it runs this function now."""
        rule = self._deaths.get(function)
        return rule is not None and rule.applies()

    def is_lost(self, function: Callable[..., Any]) -> bool:
        """Return whether the worker is lost when it runs this function now."""
        rule = self._losses.get(function)
        return rule is not None and rule.applies()

    def hangs(self, function: Callable[..., Any]) -> bool:
        """Return whether this function, if it runs now, does not end before its timeout."""
        rule = self._hangs.get(function)
        return rule is not None and rule.applies()

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what runs in place of this function now, which may be the function itself."""
        failing = self._failing.get(function)
        if failing is not None and failing.applies():
            return lambda *args, **kwargs: failing.raise_it()
        return self._replaced.get(function, function)


def function_of(what: str, method: Any) -> Callable[..., Any]:
    """Return the function of a decorated method; raise TypeError if it is something else."""
    if "_dagorama_decorated" not in getattr(method, "__dict__", {}):
        raise TypeError(f"{what} takes a decorated method, such as MyTask.perform_work, not {method!r}")
    return from_wrapper(method).function


def _checked(what: str, times: int | None) -> float:
    if times is None:
        return inf
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        raise ValueError(f"{what} got times={times!r}: it must be a number from 1 up, or None for always")
    return times
