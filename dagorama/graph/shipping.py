"""Send definitions that other processes cannot import to the workers that this program launches.

They are pickled by value, with the code hashes of this process. All of them are sent when workers start; a definition
that was made or changed later is sent when it is next called. A worker keeps all versions that it has received.

The rule: calling a definition that no worker can find is an error.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast
from weakref import WeakSet

from dagorama.errors import FunctionNotFound, NotPicklable
from dagorama.logging import get_logger
from dagorama.user_code.class_code import ClassCode, captured_in, renew, take_over
from dagorama.user_code.modules import MAIN, fill_in_names, is_local, public_name, stand_in_for_main
from dagorama.user_code.names import class_name
from dagorama.values.by_value import dumps

#: All classes of definitions in this process.
definitions: WeakSet[type] = WeakSet()
#: The classes that a running node has made.
made_in_nodes: WeakSet[type] = WeakSet()
#: Definitions given to register_definition, by the names of their classes.
registered: dict[str, Any] = {}

ADVICE = "put it into a module that workers can import"


class Version(NamedTuple):
    """The version of a class that a node is bound to: the hash of its method, and the code of the class if known."""

    method: str
    hash: str
    class_code: str

    def fit(self, code: ClassCode) -> tuple[bool, bool]:
        """Return whether the method has the same code, and whether the class has; a greater one fits better."""
        return code.hashes.get(self.method) == self.hash, code.text == self.class_code


class Header(NamedTuple):
    """The name and code of a class in a parcel, so that it can be chosen before anything is unpickled."""

    name: str
    code: ClassCode
    is_called: bool = False  #: the program has called it already


class Parcel(NamedTuple):
    """Definitions in one pickle."""

    headers: list[Header]
    registered: list[str]  #: names of the classes of registered definitions
    data: bytes  #: pickled: classes in the order of their headers, and registered definitions by name


class Shipment(NamedTuple):
    """The definitions of this program, for the workers that it launches."""

    main: str | None  #: file of its `__main__`, if that is not a module that can be imported
    has_main: bool
    parcels: list[Parcel]
    failures: dict[str, str]  #: why definitions are missing, by the names of their classes


class Receiver(Protocol):
    """Workers that this process has launched."""

    @property
    def is_open(self) -> bool: ...

    def define(self, parcel: bytes) -> None:
        """Send a parcel; return when all nodes granted from now on find its classes."""
        ...


# --- in the process that calls ---------------------------------------------------------------------------------


def add_definition(cls: type, in_node: bool) -> None:
    """Remember a new class of definitions; `in_node`: a running node has made it."""
    definitions.add(cls)
    if in_node:
        made_in_nodes.add(cls)


@dataclass(slots=True)
class _Receiver:
    to: Receiver
    pid: int
    has: set[tuple[str, str]] = field(default_factory=set)  #: names and codes of classes


_receivers: list[_Receiver] = []
_called: set[tuple[str, str]] = set()
_announced: set[str] = set()


def pack() -> Shipment:
    """Return all local classes of this process and its registered definitions, for launched workers.

    Raises NotPicklable if a class cannot be pickled that was called already, because no worker could run its nodes.
    """
    classes = sorted((cls for cls in definitions if is_local(cls)), key=class_name)
    has_main = public_name(MAIN) == MAIN
    main = getattr(sys.modules.get(MAIN), "__file__", None) if has_main else None
    if not classes and not registered:
        return Shipment(main, has_main, [], {})
    with suppress(Exception):  # the ones that cannot be pickled are found below
        return Shipment(main, has_main, [_parcel(classes, registered)], {})
    return Shipment(main, has_main, *_one_by_one(classes))


def opened(receiver: Receiver, shipment: Shipment) -> None:
    """Send classes that are defined or changed from now on to `receiver`, which has `shipment` already."""
    has = {(header.name, header.code.text) for parcel in shipment.parcels for header in parcel.headers}
    _receivers.append(_Receiver(receiver, os.getpid(), has))


def closed(receiver: Receiver) -> None:
    """Send nothing more to `receiver`."""
    _receivers[:] = [each for each in _receivers if each.to is not receiver]


def ensure_reachable(cls: type, code: ClassCode) -> None:
    """Send a local class to the workers that this process has launched, unless they have this version of it.

    Raises NotPicklable if it cannot be pickled, FunctionNotFound if this is a worker and no other worker has the class.
    """
    if not is_local(cls):
        return
    name = class_name(cls)
    if _is_worker:
        if cls in made_in_nodes and not any(header.code.text == code.text for header, _ in _versions.get(name, ())):
            raise FunctionNotFound(
                f"{name} was made by a running node, so that no other process has it: {ADVICE}, or define it at the "
                "top level of the program that launches the workers"
            )
        return
    _called.add((name, code.text))
    receivers = [each for each in _receivers if each.to.is_open and each.pid == os.getpid()]
    _receivers[:] = receivers
    if not receivers:
        _announce(name)
    lacking = [each for each in receivers if (name, code.text) not in each.has]
    if lacking:
        parcel = pickle.dumps(_checked(cls))
        for each in lacking:
            each.to.define(parcel)
            each.has.add((name, code.text))


def _announce(name: str) -> None:
    if name not in _announced:
        _announced.add(name)
        get_logger().info(
            "%s cannot be imported by other processes: workers that this process launches get it; for others, %s",
            name, ADVICE,
        )  # fmt: skip


def _checked(cls: type) -> Parcel:
    try:
        return _parcel([cls], {})
    except Exception as error:
        raise NotPicklable(_refusal(cls, error)) from None


def _refusal(cls: type, error: Exception) -> str:
    return (
        f"{class_name(cls)} cannot be sent to the workers that this program launches: {_unpicklable_part(cls)}cannot be"
        f" pickled ({type(error).__name__}: {error}); make it inside the method, or put the class into a module that"
        " workers can import"
    )


def _unpicklable_part(cls: type) -> str:
    """Return the name in the code of the class, or the attribute, whose value cannot be pickled."""
    used = ((name, value, f" that {method} uses") for method, name, value in captured_in(cls))
    own = ((name, value, f" of {cls.__qualname__}") for name, value in vars(cls).items())
    for name, value, where in (*used, *own):
        try:
            dumps(value, with_functions=True)
        except Exception:
            return f"{name!r}, a {type(value).__qualname__}{where}, "
    return "it "


def _parcel(classes: Iterable[type], registered: Mapping[str, object]) -> Parcel:
    # One pickle, so that objects shared by definitions stay shared.
    classes = list(classes)
    names = [(class_name(cls), renew(cls)) for cls in classes]
    headers = [Header(name, code, (name, code.text) in _called) for name, code in names]
    return Parcel(headers, sorted(registered), dumps((classes, dict(registered)), with_functions=True))


def _one_by_one(classes: list[type]) -> tuple[list[Parcel], dict[str, str]]:
    parcels, failures = [], {}
    for cls in classes:
        name = class_name(cls)
        own = {name: registered[name]} if type(registered.get(name)) is cls else {}
        try:
            parcels.append(_parcel([cls], own))
        except Exception as error:
            if (name, renew(cls).text) in _called:
                raise NotPicklable(_refusal(cls, error)) from None
            failures[name] = f"{type(error).__name__}: {error}"
    for name in sorted(registered.keys() - {class_name(cls) for cls in classes}):
        try:
            parcels.append(_parcel([], {name: registered[name]}))
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"
    return parcels, failures


# --- in a worker's child -----------------------------------------------------------------------------------------

_is_worker = False
_versions: dict[str, list[tuple[Header, Parcel]]] = {}  # by class name, the latest last
_loaded: dict[int, tuple[Parcel, list[type]]] = {}  # by `id(parcel)`; the parcel is kept alive here
_registered_in: dict[str, Parcel] = {}
failures: dict[str, str] = {}  #: why definitions of the launching program are missing, by name


def become_worker() -> None:
    """Use only local classes that were sent to this process from now on."""
    global _is_worker
    _is_worker = True


def receive(shipment: Shipment) -> None:
    """Store the definitions of the launching program; unpickle the ones that it has called already."""
    if shipment.has_main:
        stand_in_for_main(shipment.main)
    failures.update(shipment.failures)
    for parcel in shipment.parcels:
        receive_parcel(parcel)
        if any(header.is_called for header in parcel.headers):
            _load(parcel)


def receive_parcel(parcel: Parcel) -> None:
    """Store the definitions in a parcel without unpickling them."""
    for header in parcel.headers:
        _versions.setdefault(header.name, []).append((header, parcel))
    _registered_in.update(dict.fromkeys(parcel.registered, parcel))


def sent_class(name: str, wanted: Version) -> type | None:
    """Return the class with this name that fits best, of these the latest; None if none was sent.

    Raises FunctionNotFound if it cannot be unpickled.
    """
    versions = _versions.get(name)
    if not versions:
        return None
    header, parcel = max(reversed(versions), key=lambda version: wanted.fit(version[0].code))
    return _load(parcel)[parcel.headers.index(header)]


def load_registered(name: str) -> None:
    """Unpickle the registered definition that was sent for a class, if there is one."""
    parcel = _registered_in.pop(name, None)
    if parcel is not None:
        _load(parcel)


def _load(parcel: Parcel) -> list[type]:
    known = _loaded.get(id(parcel))
    if known is not None:
        return known[1]
    try:
        classes, definitions_sent = cast("tuple[list[type], dict[str, object]]", pickle.loads(parcel.data))
    except Exception as error:
        names = ", ".join([*(header.name for header in parcel.headers), *parcel.registered])
        raise FunctionNotFound(
            f"{names} was sent here but cannot be read ({type(error).__name__}: {error}): {ADVICE}"
        ) from error
    for cls, header in zip(classes, parcel.headers, strict=True):
        take_over(cls, header.code)
        fill_in_names(cls)
    _loaded[id(parcel)] = parcel, classes
    registered.update(definitions_sent)
    return classes
