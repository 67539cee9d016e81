"""The options of a new instance: its ID, labels, priority and fair key, checked at the call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple, TypeAlias

from dagorama.api.contract import (
    HIGHEST_PRIORITY,
    LONGEST_FAIR,
    LONGEST_LABEL,
    LONGEST_LABEL_VALUE,
    LONGEST_NAME,
    LOWEST_PRIORITY,
    MOST_LABELS,
)
from dagorama.graph.constructor_arguments import constructor_bytes
from dagorama.graph.delays import Delay
from dagorama.models.texts import check_content
from dagorama.values.digest import stable_digest


@dataclass(frozen=True, slots=True)
class StartOptions:
    """The ID of an instance, if it has one, with its labels, priority and fair key."""

    id: str
    labels: Mapping[str, str]
    priority: int
    fair: str = ""  #: empty: it has none
    digest: bytes = b""  #: of what the instance is started with, if it has an ID
    delay: Delay | None = None  #: of its entry point
    refresh: bool = False  #: whether its nodes run even if their values are cached


class StartedInstance(NamedTuple):
    """An instance with an ID that is not submitted yet."""

    digest: bytes  #: of what it was started with
    instance: Any
    result: Any  #: of its entry point


#: Instances that a batch() block or a running node has started, by definition and ID.
Started: TypeAlias = dict[tuple[str, str], StartedInstance]


def start_options(
    id: str | None = None,
    labels: Mapping[str, str] | None = None,
    priority: int = 0,
    fair: str | None = None,
    refresh: bool = False,
) -> StartOptions:
    """Return the options. Raises TypeError or ValueError, which name the argument."""
    name = check_id(id) if id is not None else ""
    found = _checked_labels(labels if labels is not None else {})
    if type(priority) is not int:
        raise TypeError(f"priority is {priority!r}: it must be an integer")
    if not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        raise ValueError(f"priority is {priority}: it must be from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}")
    if not isinstance(refresh, bool):
        raise TypeError(f"refresh is {refresh!r}: it must be True or False")
    key = check_fair(fair) if fair is not None else ""
    return StartOptions(name, found, priority, fair=key, refresh=refresh)


def check_id(id: str | None) -> str:
    """Return an ID that a caller asks for. Raises TypeError or ValueError."""
    return _check_text(id, "id", 1, LONGEST_NAME)


def check_fair(fair: str) -> str:
    """Return a fair key as it was given. Raises TypeError or ValueError."""
    return _check_text(fair, "fair", 1, LONGEST_FAIR)


def _checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(labels, Mapping):
        raise TypeError(f"labels is {labels!r}: it must be a mapping of strings to strings")
    if len(labels) > MOST_LABELS:
        raise ValueError(f"an instance can have {MOST_LABELS} labels, and {len(labels)} were given")
    for label, value in labels.items():
        _check_text(label, "a label", 1, LONGEST_LABEL)
        _check_text(value, f"the value of the label {label!r}", 0, LONGEST_LABEL_VALUE)
    return dict(labels)


def _check_text(text: str | None, what: str, least: int, most: int) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} is {text!r}: it must be a string")
    return check_content(text, what, least, most)


def started_with(definition: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Return the digest of the arguments of a definition and of a call of it, positional or by name.

    Raises NotPicklable or TypeMismatch. Arguments that the entry point does not take are left to the call, which raises
    TypeError.
    """
    entry = type(definition).entrypoint
    try:
        given = signature(getattr(entry, "original_fn", entry)).bind(definition, *args, **kwargs).arguments
        named: object = dict(list(given.items())[1:])
    except (TypeError, ValueError):
        named = (args, kwargs)
    else:
        decorated = entry.__dict__.get("_dagorama_decorated")
        if decorated is not None and decorated.json is not None:
            encoded = decorated.json.encode_call(args, kwargs)
            named = (encoded.envelope, encoded.refs)
    return stable_digest((constructor_bytes(definition), named), "arguments")
