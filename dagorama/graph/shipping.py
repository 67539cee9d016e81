"""Definitions that other processes cannot import, on their way to the workers that this program launches.

They travel by value, with the code hashes that this process has worked out: all of them when workers start, and one
that was defined or changed since when it is next called. A worker keeps every version that it was sent.

The rule: a definition that no worker could find is refused where it is called.
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

#: all classes of definitions that are alive in this process
definitions: WeakSet[type] = WeakSet()
#: those that a running node has made
made_in_nodes: WeakSet[type] = WeakSet()
#: what register_definition was given, by the names of their classes
registered: dict[str, Any] = {}

ADVICE = "put it into a module that workers can import"


class Header(NamedTuple):
    """A class in a parcel, so that it can be chosen before anything is unpickled."""

    name: str
    code: ClassCode
    is_called: bool = False  #: the program has made an instance of it already


class Parcel(NamedTuple):
    headers: list[Header]
    registered: list[str]  #: names of the classes of registered definitions
    data: bytes  #: pickled: classes in the order of their headers, and registered definitions by name


class Shipment(NamedTuple):
    """What launched workers are told of this program."""

    main: str | None  #: file of its `__main__`, if that is not a module that can be imported
    has_main: bool
    parcels: list[Parcel]
    failures: dict[str, str]  #: why definitions stay behind, by the names of their classes


class Receiver(Protocol):
    """Workers that this process has launched."""

    @property
    def is_open(self) -> bool: ...

    def define(self, parcel: bytes) -> None:
        """Return when every node that is granted from now on finds the parcel's classes."""
        ...


# --- in the process that calls ---------------------------------------------------------------------------------


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

    Raises NotPicklable if one cannot travel whose definition was called already: nobody could run what it has made.
    """
    classes = sorted((cls for cls in definitions if is_local(cls)), key=class_name)
    has_main = public_name(MAIN) == MAIN
    main = getattr(sys.modules.get(MAIN), "__file__", None) if has_main else None
    if not classes and not registered:
        return Shipment(main, has_main, [], {})
    with suppress(Exception):  # which of them cannot travel is found out below
        return Shipment(main, has_main, [_parcel(classes, registered)], {})
    return Shipment(main, has_main, *_one_by_one(classes))


def opened(receiver: Receiver, shipment: Shipment) -> None:
    """Tell `receiver` of every class that is defined or changed from now on; it has got `shipment`."""
    has = {(header.name, header.code.text) for parcel in shipment.parcels for header in parcel.headers}
    _receivers.append(_Receiver(receiver, os.getpid(), has))


def ensure_reachable(cls: type, code: ClassCode) -> None:
    """Send a local class to the workers that this process has launched, if they lack it as it is now.

    Raises NotPicklable if it cannot travel there, FunctionNotFound if this is a worker and no other has the class.
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
        f"{class_name(cls)} cannot be sent to the workers that this program launches: {_culprit(cls)}cannot be pickled "
        f"({type(error).__name__}: {error}); make it inside the method, or put the class into a module that workers "
        "can import"
    )


def _culprit(cls: type) -> str:
    """The name in the class's code whose value cannot travel."""
    for method, name, value in captured_in(cls):
        try:
            dumps(value, with_functions=True)
        except Exception:
            return f"{name!r}, a {type(value).__qualname__} that {method} uses, "
    return "it "


def _parcel(classes: Iterable[type], registered: Mapping[str, object]) -> Parcel:
    # One pickle, so that what the definitions share stays shared.
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
_loaded: dict[int, tuple[Parcel, list[type]]] = {}  # by the parcel's id, which stays its own as long as it is held
_registered_in: dict[str, Parcel] = {}
failures: dict[str, str] = {}  #: why definitions of the launching program did not come, by name


def become_worker() -> None:
    """From now on local classes are those that were sent, and no others."""
    global _is_worker
    _is_worker = True


def receive(shipment: Shipment) -> None:
    """Take what the launching program has sent; what was not called yet is unpickled when it is needed."""
    if shipment.has_main:
        stand_in_for_main(shipment.main)
    failures.update(shipment.failures)
    for parcel in shipment.parcels:
        receive_parcel(parcel)
        if any(header.is_called for header in parcel.headers):
            _load(parcel)


def receive_parcel(parcel: Parcel) -> None:
    for header in parcel.headers:
        _versions.setdefault(header.name, []).append((header, parcel))
    _registered_in.update(dict.fromkeys(parcel.registered, parcel))


def sent_class(name: str, method: str, hash: str) -> type | None:
    """Return the class of that name whose method has that hash; without one that has, the latest; None: none was sent.

    Raises FunctionNotFound if it cannot be unpickled.
    """
    versions = _versions.get(name, [])
    fitting = [version for version in versions if version[0].code.hashes.get(method) == hash] or versions
    if not fitting:
        return None
    header, parcel = fitting[-1]
    return _load(parcel)[parcel.headers.index(header)]


def load_registered(name: str) -> None:
    """Unpickle the registered definition that was sent under the name of its class, if there is one."""
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
