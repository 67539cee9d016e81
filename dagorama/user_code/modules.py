"""Which modules another process can import, and which classes and functions it finds there.

The rule: local is what a fresh process with this sys.path would not find under its name, and as the same object. Only
that travels by value.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

MAIN = "__main__"
#: what multiprocessing calls the user's program in the processes that it spawns
SPAWNED_MAIN = "__mp_main__"

#: modules that other processes cannot import, as far as they were met; values that name them travel by value
local_modules = {MAIN, SPAWNED_MAIN}

#: modules of the launching program that a worker's child fills with what comes by value; None in other processes
_filled: set[str] | None = None


def public_name(module: str) -> str:
    """Return the name under which other processes import a module: that of a program run by `python -m` is not
    `__main__`."""
    if module not in (MAIN, SPAWNED_MAIN):
        return module
    name = _name_of_main()
    if name and name not in sys.modules:
        # A value of one of its classes comes back under that name, and has to be of the class that the program has.
        main = sys.modules[name] = sys.modules[MAIN]
        parent, _, last = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], last, main)
    return name or MAIN


def is_local(found: type | FunctionType) -> bool:
    """Return whether a class or function is one that other processes cannot import under its name."""
    module = found.__module__
    if not _is_importable(module):
        local_modules.add(module)
        return True
    return "<locals>" in found.__qualname__ or not is_found(found)


def is_found(found: type | FunctionType) -> bool:
    """Return whether its module, as this process has it, has it under its name."""
    return named(sys.modules.get(found.__module__), found.__qualname__) is found


def named(module: ModuleType | None, path: str) -> Any:
    """Return what a module has under a dotted path, or None."""
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def may_hold_local(pickled: bytes) -> bool:
    """Return whether a pickle may name something of a local module."""
    if b"_main__" in pickled:
        return True
    return len(local_modules) > 2 and any(name.encode() in pickled for name in local_modules)


def stand_in_for_main(file: str | None) -> None:
    """Make an empty `__main__` in a worker's child, to be filled with that of the program which launched the worker."""
    global _filled
    main = sys.modules[MAIN] = ModuleType(MAIN)
    if file is not None:
        main.__file__ = file  # multiprocessing asks for it
    _filled = {MAIN}


def fill_in(found: type | FunctionType) -> None:
    """Let what came by value be found under its name, in a worker's child."""
    name = found.__module__
    if _filled is None or name is None or "." in found.__qualname__:
        return
    if name not in sys.modules and _spec_of(name) is None:
        sys.modules[name] = ModuleType(name)
        _filled.add(name)
    if name in _filled:
        setattr(sys.modules[name], found.__qualname__, found)


def fill_in_names(cls: type) -> None:
    """Let a class that came by value be found under its name, and whatever its methods name in their module."""
    fill_in(cls)
    if _filled is None or cls.__module__ not in _filled:
        return
    place = vars(sys.modules[cls.__module__])
    for base in cls.__mro__:
        for found in vars(base).values():
            plain = getattr(found, "original_fn", getattr(found, "__func__", found))
            names = getattr(plain, "__globals__", {})
            if names.get("__name__") == cls.__module__:
                place.update({name: value for name, value in names.items() if not name.startswith("__")})


def is_filled(module: str) -> bool:
    """Return whether this process has filled that module itself, so that what is there may be replaced."""
    return _filled is not None and module in _filled


def absolute_path() -> list[str]:
    """Return sys.path as another process can use it, whatever folder it or this one goes to."""
    return [os.path.abspath(entry) for entry in sys.path]


def _name_of_main() -> str:
    """Return the name that `python -m` was given, or an empty one if the program cannot be imported."""
    spec = getattr(sys.modules.get(MAIN), "__spec__", None)
    if not isinstance(spec, ModuleSpec) or spec.name == MAIN or not _finds(spec.name, spec.origin):
        return ""
    return spec.name


_importable: dict[str, bool] = {}
_path_then: list[str] = []  # sys.path when that was found out


def _is_importable(module: str) -> bool:
    if module in (MAIN, SPAWNED_MAIN):
        return bool(_name_of_main())
    if _path_then != sys.path:
        _path_then[:] = sys.path
        _importable.clear()
    found = _importable.get(module)
    if found is None:
        loaded = sys.modules.get(module)
        found = _importable[module] = loaded is not None and _finds(module, _origin_of(loaded))
    return found


def _origin_of(module: ModuleType) -> str | None:
    spec = getattr(module, "__spec__", None)
    return getattr(spec, "origin", None) or getattr(module, "__file__", None)


def _finds(name: str, origin: str | None) -> bool:
    """Return whether an import of that name would load the file `origin`."""
    spec = _spec_of(name)
    if spec is None:
        return False
    return origin is None or spec.origin is None or _same_file(spec.origin, origin)


def _spec_of(name: str) -> ModuleSpec | None:
    """Ask the finders, as an import in a process that has loaded nothing would."""
    parent, _, _ = name.rpartition(".")
    places = None
    if parent:
        above = _spec_of(parent)
        places = None if above is None else above.submodule_search_locations
        if places is None:
            return None
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = None if find is None else find(name, None if places is None else list(places))
        if isinstance(spec, ModuleSpec):
            return spec
    return None


def _same_file(one: str, other: str) -> bool:
    return one == other or os.path.realpath(one) == os.path.realpath(other)
