"""Read the arguments of an entry point from the command line, by its annotations.

Simple types are read as themselves, containers as JSON. An argument without an annotation, or with another one, is
JSON if it can be read as JSON, otherwise text.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature, unwrap
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dagorama.user_code.function_parts import own_signature

_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_CONTAINERS: dict[Any, type] = {list: list, dict: dict, tuple: list, set: list, frozenset: list}
_NUMBERS = {int: "a whole number", float: "a number", bool: "true or false"}


class WrongArguments(ValueError):
    """The arguments do not fit the entry point; the message is for the one who typed them."""


def read_arguments(
    entry: Callable[..., Any], name: str, texts: Sequence[str]
) -> tuple[list[Any], dict[str, Any]]:  # fmt: skip
    """Return positional and named arguments for an entry point. Raise WrongArguments."""
    function = unwrap(entry)
    parameters = list(own_signature(function).parameters.values())
    positional, named = _split(parameters, texts)
    spelled = Signature(parameters)
    try:
        spelled.bind(*positional, **named)
    except TypeError as error:
        raise WrongArguments(f"{name}{spelled}: {error}") from None
    hints = _hints(function)
    places = _places(parameters, len(positional))
    return (
        [_read(text, hints.get(place.name), place.name) for text, place in zip(positional, places, strict=True)],
        {key: _read(text, hints.get(key), key) for key, text in named.items()},
    )


def _split(parameters: Sequence[Parameter], texts: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Separate `name=value` from other arguments; it is one only if the entry point has that parameter."""
    names = {each.name for each in parameters if each.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)}
    positional, named = list[str](), dict[str, str]()
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key in names):
            positional.append(text)
        elif key in named:
            raise WrongArguments(f"{key} is given twice")
        else:
            named[key] = value
    return positional, named


def _places(parameters: Sequence[Parameter], count: int) -> list[Parameter]:
    """Return the parameters that this number of positional arguments goes to."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    places = [each for each in parameters if each.kind in kinds][:count]
    rest = [each for each in parameters if each.kind is Parameter.VAR_POSITIONAL]
    return places + rest * (count - len(places))


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the annotations; as far as they cannot be evaluated here, without them."""
    try:
        return get_type_hints(function)
    except Exception:  # a name that only type checkers import, for example
        found = getattr(function, "__annotations__", {})
        return {name: hint for name, hint in found.items() if not isinstance(hint, str)}


# --- one argument -------------------------------------------------------------------------------------------


def _read(text: str, hint: Any, name: str) -> Any:
    try:
        return _parsed(text, hint)
    except ValueError as error:
        raise WrongArguments(f"{name} is {text!r}: it must be {error}") from None


def _parsed(text: str, hint: Any) -> Any:
    """Return the value of a text. Raise ValueError with a description of what it must be."""
    if hint is str:
        return text
    if hint is Path:
        return Path(text)
    if hint in _NUMBERS:
        return _number(text, hint)
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return _one_of(text, get_args(hint))
    if origin is Literal:
        return _choice(text, get_args(hint))
    if origin in _CONTAINERS:
        return _converted(_json_of(text, _CONTAINERS[origin]), hint)
    return _json_or_text(text)


def _number(text: str, kind: type) -> Any:
    try:
        return _TRUTHS[text.strip().lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ValueError(_NUMBERS[kind]) from None


def _one_of(text: str, hints: Sequence[Any]) -> Any:
    """Return the value by the first alternative that fits; `null` is None unless it may be text."""
    if type(None) in hints and str not in hints and text == "null":
        return None
    expected = []
    for hint in sorted((each for each in hints if each is not type(None)), key=lambda each: each is str):
        try:
            return _parsed(text, hint)
        except ValueError as error:
            expected.append(str(error))
    raise ValueError(" or ".join(expected))


def _choice(text: str, choices: Sequence[Any]) -> Any:
    for choice in choices:
        if str(choice) == text:
            return choice
    raise ValueError(f"one of {', '.join(map(str, choices))}")


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json_of(text: str, kind: type) -> Any:
    what = "an object" if kind is dict else "an array"
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{what} in JSON ({error})") from None
    if not isinstance(found, kind):
        raise ValueError(f"{what} in JSON")
    return found


def _converted(value: Any, hint: Any) -> Any:
    """Return a value of JSON as an annotation describes it. Raise ValueError."""
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin is dict and isinstance(value, dict):
        return {key: _converted(item, inner[1]) for key, item in value.items()} if len(inner) == 2 else value
    if origin in _CONTAINERS and isinstance(value, list):
        return origin(_item(item, _item_hint(origin, inner, place), place) for place, item in enumerate(value))
    return _plain(value, hint)


def _item_hint(origin: Any, inner: Sequence[Any], place: int) -> Any:
    if not inner:
        return Any
    return inner[place] if origin is tuple and place < len(inner) and inner[-1] is not ... else inner[0]


def _item(value: Any, hint: Any, place: int) -> Any:
    try:
        return _converted(value, hint)
    except ValueError as error:
        raise ValueError(f"an array whose item {place} is {error}") from None


def _plain(value: Any, hint: Any) -> Any:
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    is_wrong = hint in (str, int, float, bool) and (not isinstance(value, hint) or (hint is int and value is True))
    if is_wrong or (hint is int and isinstance(value, bool)):
        raise ValueError({**_NUMBERS, str: "text"}[hint])
    return value
