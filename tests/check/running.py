"""Runs the planted modules with the real library: what a finding says must come true, and nothing else may fail."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from inspect import isawaitable
from pathlib import Path
from types import ModuleType
from typing import Any

from dagorama import DAGDefinition, NodeFailed, batch, execute_worker, resolve

HERE = Path(__file__).parent
#: Ends a line for which a code must be reported, followed by the code; `, ` and a second one for two findings.
MARK = "  #: "
PLANTED, SILENT = (
    sorted(file.stem for file in (HERE / folder).glob("*.py") if file.stem not in ("__init__", "nodes"))
    for folder in ("planted", "silent")
)


def all_ends(folder: str, names: Iterable[str]) -> dict[str, str]:
    """Return how everything in these modules ends."""
    modules = [module_of(folder, name) for name in names]
    ends = ends_of(definition for module in modules for definition in definitions_in(module))
    return ends | ends_of_plain(function for module in modules for function in plain_functions_in(module))


def module_of(folder: str, name: str) -> ModuleType:
    return import_module(f"tests.check.{folder}.{name}")


def definitions_in(module: ModuleType) -> Iterator[type[DAGDefinition]]:
    """Yield the definitions that a module makes and that can be called; in a planted module, those with a mark."""
    for value in list(vars(module).values()):
        if not isinstance(value, type) or not issubclass(value, DAGDefinition) or value.__module__ != module.__name__:
            continue
        if "entrypoint" in vars(value) and _counts(value):
            yield value


def plain_functions_in(module: ModuleType) -> Iterator[Callable[[], Any]]:
    found = [value for name, value in vars(module).items() if name.startswith("plain_") and inspect.isfunction(value)]
    return filter(_counts, found)


def _counts(value: Any) -> bool:
    """Return whether something in a planted module is marked; others there are only called by what is."""
    return not value.__module__.startswith("tests.check.planted.") or MARK in inspect.getsource(value)


def ends_of(definitions: Iterable[type[DAGDefinition]]) -> dict[str, str]:
    """Start an instance of each with the argument 3, and run all nodes here.

    Return by the name of each definition the type of the error that its entry point ended with, or `= ` and its value.
    """
    ends, started = {}, {}
    for definition in definitions:
        try:
            started[_name(definition)] = _finished(definition()(3))
        except Exception as error:
            ends[_name(definition)] = type(error).__name__
    execute_worker(infinite_loop=False)
    for name, (instance, promise) in started.items():
        try:
            ends[name] = f"= {resolve(instance, promise, timeout=30)!r}"
        except NodeFailed as error:
            ends[name] = error.type.rpartition(".")[2]
    return ends


def _name(made: Any) -> str:
    return f"{made.__module__.rpartition('.')[2]}.{made.__name__}"


class _Abandoned(Exception):
    pass


def ends_of_plain(functions: Iterable[Callable[[], Any]]) -> dict[str, str]:
    return {_name(function): _end_of(function) for function in functions}


def _end_of(function: Callable[[], Any]) -> str:
    """Return the name of the error that a plain function raises, `= ` for none; what it submits is abandoned."""
    try:
        with batch():
            _finished(function())
            raise _Abandoned
    except _Abandoned:
        return "= "
    except Exception as error:
        return type(error).__name__


def _finished(result: Any) -> Any:
    return asyncio.run(_awaited(result)) if isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result
