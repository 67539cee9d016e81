"""Which modules, classes and functions other processes can import, and which ones must be sent by value.

The rule: an object is local if a fresh process with this sys.path would not find the same object under its name. Only
local objects are sent by value.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

MAIN = "__main__"
#: the name of the user's program in processes that multiprocessing spawns
SPAWNED_MAIN = "__mp_main__"

#: modules found so far that other processes cannot import; values that name them are sent by value
local_modules = {MAIN, SPAWNED_MAIN}

#: modules of the launching program that a worker's child fills with received objects; None in other processes
_filled: set[str] | None = None


def public_name(module: str) -> str:
    """Return the name under which other processes import a module. For a program run by `python -m` it is not
    `__main__`."""
    if module not in (MAIN, SPAWNED_MAIN):
        return module
    name = _name_of_main()
    if name and name not in sys.modules:
        # A received value of one of its classes has that name, and must be an instance of the program's own class.
        main = sys.modules[name] = sys.modules[MAIN]
        parent, _, last = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], last, main)
    return name or MAIN


def is_local(found: type | FunctionType) -> bool:
    """Return whether other processes cannot import a class or function under its name."""
    module = found.__module__
    if not _is_importable(module):
        local_modules.add(module)
        return True
    return "<locals>" in found.__qualname__ or not is_found(found)


def is_found(found: type | FunctionType) -> bool:
    """Return whether a class or function is found under its name in its module, in this process."""
    return named(sys.modules.get(found.__module__), found.__qualname__) is found


def named(module: ModuleType | None, path: str) -> Any:
    """Return the object under a dotted path in a module, or None."""
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def may_hold_local(pickled: bytes) -> bool:
    """Return whether a pickle may name an object in a local module."""
    if b"_main__" in pickled:
        return True
    return len(local_modules) > 2 and any(name.encode() in pickled for name in local_modules)


def stand_in_for_main(file: str | None) -> None:
    """Replace `__main__` in a worker's child by an empty module, which is filled from the launching program."""
    global _filled
    main = sys.modules[MAIN] = ModuleType(MAIN)
    if file is not None:
        main.__file__ = file  # multiprocessing asks for it
    _filled = {MAIN}


def fill_in(found: type | FunctionType) -> None:
    """Make a received class or function available under its name, in a worker's child."""
    name = found.__module__
    if _filled is None or name is None or "." in found.__qualname__:
        return
    if name not in sys.modules and _spec_of(name) is None:
        sys.modules[name] = ModuleType(name)
        _filled.add(name)
    if name in _filled:
        setattr(sys.modules[name], found.__qualname__, found)


def fill_in_names(cls: type) -> None:
    """Make a received class available under its name, and all objects that its methods name in their module."""
    fill_in(cls)
    if _filled is None or cls.__module__ not in _filled:
        return
    namespace = vars(sys.modules[cls.__module__])
    for base in cls.__mro__:
        for found in vars(base).values():
            plain = getattr(found, "original_fn", getattr(found, "__func__", found))
            names = getattr(plain, "__globals__", {})
            if names.get("__name__") == cls.__module__:
                namespace.update({name: value for name, value in names.items() if not name.startswith("__")})


def is_filled(module: str) -> bool:
    """Return whether this process has filled the module itself, so that its objects may be replaced."""
    return _filled is not None and module in _filled


def absolute_path() -> list[str]:
    """Return sys.path with absolute paths, which other processes can use in any current folder."""
    return [os.path.abspath(entry) for entry in sys.path]


def _name_of_main() -> str:
    """Return the module name given to `python -m`, or an empty text if the program cannot be imported."""
    spec = getattr(sys.modules.get(MAIN), "__spec__", None)
    if not isinstance(spec, ModuleSpec) or spec.name == MAIN or not _finds(spec.name, spec.origin):
        return ""
    return spec.name


_importable: dict[str, bool] = {}
_path_then: list[str] = []  # sys.path at that time


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
    """Return whether an import of this name would load the file `origin`."""
    spec = _spec_of(name)
    if spec is None:
        return False
    return origin is None or spec.origin is None or _same_file(spec.origin, origin)


def _spec_of(name: str) -> ModuleSpec | None:
    """Return the spec that the finders would return in a process that has loaded no modules, or None."""
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
