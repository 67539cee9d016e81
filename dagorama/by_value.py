"""What other processes cannot import, pickled by value: cloudpickle, loaded when it is first needed.

The rule: code keeps the name of its file, so that a traceback from over there shows its lines; cloudpickle from 3.1.3
on leaves it out.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from io import BytesIO
from types import CodeType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from dagorama.parts import LeftOut

PROTOCOL = 5

_Reducer = Callable[[Any], tuple[Any, ...]]


def dumps(
    value: object, reducers: Mapping[type, _Reducer] | None = None, left_out: LeftOut | None = None
) -> bytes:
    """A pickle of `value` in which `reducers` come before cloudpickle's own, without what goes to `left_out`.

    Raises whatever pickling it raises.
    """
    import pickle

    import cloudpickle  # type: ignore[import-untyped]  # it ships no types

    file = BytesIO()
    if left_out is None:
        pickler = cloudpickle.Pickler(file, PROTOCOL)
    else:
        parting = type("Parting", (cloudpickle.Pickler,), {"persistent_id": staticmethod(left_out.persistent_id)})
        pickler = parting(file, PROTOCOL, buffer_callback=left_out.buffer_callback)
    theirs = cast(dict[type, _Reducer], pickler.dispatch_table)

    def code(found: CodeType) -> tuple[Any, ...]:
        make, arguments = theirs[CodeType](found)
        return _code, (make, arguments, found.co_filename)

    ours: dict[type, _Reducer] = {CodeType: code, **(reducers or {})}
    # Its class has an attribute of that name, under which an assignment would not reach the C pickler.
    vars(pickle.Pickler)["dispatch_table"].__set__(pickler, ChainMap(ours, theirs))
    pickler.dump(value)
    return file.getvalue()


def _code(make: Callable[..., CodeType], arguments: tuple[Any, ...], filename: str) -> CodeType:
    """Named in every such pickle."""
    return make(*arguments).replace(co_filename=filename)
