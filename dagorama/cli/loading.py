"""Find the definition that MODULE:Class names, with errors that say whose fault it is if there is none."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from inspect import isabstract, isclass
from types import ModuleType, TracebackType
from typing import NoReturn

import click

from dagorama.cli.base import fail
from dagorama.cli.exit_codes import ExitCode
from dagorama.cli.parameters import current_folder
from dagorama.definition import DAGDefinition
from dagorama.errors import DagoramaError, DefinitionNotRegistered
from dagorama_monitoring.documentation import with_address


def import_path_of_workers() -> None:
    """Import from the current folder too, as a worker does."""
    if (folder := current_folder()) not in sys.path:
        sys.path.insert(0, folder)


def import_from_here(name: str) -> ModuleType:
    """Import a module as `python -m` would, from the current folder too; exit with an error if that is impossible."""
    import_path_of_workers()
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            _blame(f"{name} cannot be imported, because it imports {error.name}, which is not installed here", error)
        hint = f"; for the file {name}, write {name.removesuffix('.py')}" if name.endswith(".py") else ""
        raise click.UsageError(
            f"there is no module {error.name} here: run this in its folder, or install it{hint}"
        ) from None
    except DagoramaError as error:
        fail(with_address(error, f"{name} cannot be imported: {error}"), ExitCode.REFUSED)
    except (Exception, SystemExit) as error:
        _blame(f"{name} cannot be imported, because its code raised {type(error).__name__}", error)


def load_definition(name: str) -> type[DAGDefinition]:
    """Return the class that MODULE:Class names; exit with an error if it is not a definition."""
    module_name, colon, path = name.partition(":")
    if not colon or not module_name or not path:
        raise click.UsageError(f"{name!r} must look like MODULE:Class, for example flow:Shapes")
    found: object = import_from_here(module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise click.UsageError(f"the module {module_name} has no {path}{_definitions_in(module_name)}")
        found = getattr(found, part)
    if not (isclass(found) and issubclass(found, DAGDefinition)):
        raise click.UsageError(f"{name} is not a subclass of DAGDefinition{_definitions_in(module_name)}")
    return found


def make_definition(cls: type[DAGDefinition]) -> DAGDefinition:
    """Return the registered definition of a class, or one constructed without arguments; exit if it needs some."""
    from dagorama.graph.definitions import instantiate

    if isabstract(cls):
        raise click.UsageError(f"{cls.__qualname__} has no entrypoint method")
    try:
        return instantiate(cls)
    except DefinitionNotRegistered as error:
        raise click.UsageError(with_address(error)) from None


def _definitions_in(module: str) -> str:
    """Return the names of the definitions in a module, as the end of a sentence."""
    names = [
        name for name, value in vars(sys.modules[module]).items()
        if isclass(value) and issubclass(value, DAGDefinition) and value.__module__ == module
    ]  # fmt: skip
    return f"; it defines {', '.join(sorted(names))}" if names else ""


def print_user_traceback(error: BaseException) -> None:
    """Print the traceback of an exception of user code on stderr, without the frames of dagorama before it."""
    kind, shown = type(error), in_user_code(error.__traceback__)
    click.echo("".join(traceback.format_exception(kind, error, shown)).rstrip(), err=True)


def in_user_code(found: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback between its first and its last frame outside of dagorama and the import system.

    An exception that dagorama raises ends at the call in user code.
    """
    each: list[TracebackType] = []
    while found is not None:
        if each or not _is_ours(found.tb_frame.f_code.co_filename):
            each.append(found)
        found = found.tb_next
    while each and _is_ours(each[-1].tb_frame.f_code.co_filename):
        each.pop()
    shown: TracebackType | None = None
    for one in reversed(each):
        shown = TracebackType(shown, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return shown


def _is_ours(file: str) -> bool:
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return file.startswith((package + os.sep, "<frozen importlib")) or f"{os.sep}importlib{os.sep}" in file


def _blame(sentence: str, error: BaseException) -> NoReturn:
    """Exit with the traceback of user code and a sentence."""
    print_user_traceback(error)
    fail(sentence, ExitCode.REFUSED)
