"""The annotations of a function with codec="json": complete when it is decorated, resolved then or later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from types import FrameType
from typing import Any, get_type_hints

from dagorama.errors import TypeMismatch
from dagorama.user_code.function_parts import own_signature
from dagorama.values.json_calls import JsonFunction
from dagorama.values.json_types.annotations import Builder
from dagorama.values.json_types.misfit import Unsupported
from dagorama.values.typed_json import TypedJson

Hints = Mapping[str, Any]


def check_annotated(function: Callable[..., object]) -> None:
    """Raise TypeMismatch unless all parameters after the first, `self`, and the result have annotations."""
    found = own_signature(function)
    for name, parameter in found.parameters.items():
        if parameter.annotation is Parameter.empty:
            raise TypeMismatch(
                f'{function.__qualname__} has codec="json", and its parameter {name!r} has no annotation: add one'
            )
    if found.return_annotation is Signature.empty:
        raise TypeMismatch(
            f'{function.__qualname__} has codec="json", and no annotation of its result: add one, such as `-> None`'
        )


def local_names(function: Callable[..., Any], frame: FrameType | None) -> dict[str, Any]:
    """Return the local names around the definition of a function, for annotations that are texts."""
    found: list[Mapping[str, Any]] = []
    while frame is not None:
        # Callers of the surrounding code may be in the same module, and their names mean nothing here.
        is_around = function.__qualname__.startswith(f"{frame.f_code.co_qualname}.")
        if is_around and frame.f_globals is function.__globals__ and frame.f_locals is not frame.f_globals:
            found.append(frame.f_locals)
        frame = frame.f_back
    return {name: value for names in reversed(found) for name, value in names.items()}


def hints_of(function: Callable[..., object], names: Mapping[str, Any]) -> Hints:
    """Return the annotations of parameters and result; raise NameError if a text among them names nothing."""
    return get_type_hints(function, localns=dict(names) or None, include_extras=True)


def json_function(function: Callable[..., object], hints: Hints, names: Mapping[str, Any]) -> JsonFunction:
    """Return the JSON types of a function; raise TypeMismatch if one has no JSON form, NameError as `hints_of`."""
    builder, types = Builder(names), dict[str, TypedJson]()
    for name in [*own_signature(function).parameters, "return"]:
        what = "the result" if name == "return" else f"parameter {name!r}"
        try:
            types[name] = TypedJson(builder.shape(hints[name]))
            builder.finish()
        except Unsupported as error:
            raise TypeMismatch(f'{what} of {function.__qualname__}, which has codec="json": {error}') from None
    return JsonFunction(function, types, types.pop("return"))
