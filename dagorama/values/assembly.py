"""Values of promises put together: each value with the values of the promises in it, to any depth."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

from dagorama.api.contract import JSON, SIGNAL
from dagorama.errors import FunctionNotFound, ValueNotReadable
from dagorama.values.codec import decode, decode_call
from dagorama.values.envelope import content, flags, references, taken_apart
from dagorama.values.out_of_band import GetLarge

K = TypeVar("K", bound=Hashable)
K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)


class Envelopes(Protocol[K_contra]):
    """Opened envelopes by key: a mapping, or an object that opens them on demand."""

    def get(self, key: K_contra, /) -> bytes | None: ...


def assemble(
    roots: Sequence[K],
    envelopes: Envelopes[K],
    refs: Mapping[K, Sequence[K]] | None = None,
    *,
    get_large: GetLarge | None = None,
) -> list[object]:
    """Return the values of `roots`, whose promises are replaced by their values, to any depth.

    `refs[key]` has the key for each reference of `envelopes[key]`; keys without references may be missing, and
    without `refs` the keys are node IDs. Each key is unpickled once. Raises ValueNotReadable.
    """
    values: dict[K, object] = {}
    for root in roots:
        if root not in values:
            _assemble(root, envelopes, refs, values, get_large)
    return [values[root] for root in roots]


def decode_promised(
    root: K,
    envelopes: Envelopes[K],
    refs: Mapping[K, Sequence[K]] | None = None,
    *,
    get_large: GetLarge | None = None,
) -> object:
    """Return the value of one root, as `assemble` does."""
    return assemble((root,), envelopes, refs, get_large=get_large)[0]


def _assemble(
    root: K,
    envelopes: Envelopes[K],
    refs: Mapping[K, Sequence[K]] | None,
    values: dict[K, object],
    get_large: GetLarge | None,
) -> None:
    stack = [root]
    opened: set[K] = set()
    while stack:
        key = stack[-1]
        if key in values:
            stack.pop()
            continue
        envelope = envelopes.get(key)
        if envelope is None:
            raise ValueNotReadable(f"the value of {_shown(key)} is needed and was not sent")
        needed = cast("Sequence[K]", references(envelope)) if refs is None else refs.get(key, ())
        if missing := needed and [other for other in needed if other not in values]:
            if key in opened:
                raise ValueNotReadable(f"the value of {_shown(key)} contains itself")
            opened.add(key)
            stack += missing
        else:
            fill = [values[other] for other in needed] if needed else ()
            values[key] = read_value(envelope, fill, get_large)


def read_value(envelope: bytes, fill: Sequence[object] = (), get_large: GetLarge | None = None) -> object:
    """Return the value in the envelope of a result, a pickle or JSON.

    Raises ValueNotReadable, or TypeMismatch for a signal of another type than its node waits for, and for a promise
    that a JSON function has returned although its value does not fit.
    """
    marks = flags(envelope)
    if marks == SIGNAL:
        return read_signal(envelope)
    if not marks & JSON:
        return decode(envelope, fill, what="value of a node", get_large=get_large)
    from dagorama.values.json_calls import read_result

    try:
        return read_result(envelope, fill, get_large=get_large)
    except FunctionNotFound as error:
        raise ValueNotReadable(f"the value of a node is JSON of a function that is not here: {error}") from error


def read_signal(envelope: bytes) -> Any:
    """Return the value in the envelope of a signal, whose arguments were opened.

    Raises TypeMismatch, with the name of the signal and the place in it, if it is not JSON of the type that the node
    waits for, and ValueNotReadable.
    """
    parts = taken_apart(envelope)
    from dagorama.values.typed_json import json_type

    try:
        (name, annotation, default), _ = decode_call(parts.arguments)
    except ValueNotReadable as error:
        raise ValueNotReadable(
            f"the type that {_wait_in(parts.arguments)} has given to its signal cannot be loaded here ({error}): keep "
            "its class importable while nodes wait for it, and retry the node"
        ) from error
    text = parts.text or default
    if not isinstance(text, bytes):
        raise ValueNotReadable(f"the broker says that the signal {name!r} has its default, and it has none")
    return json_type(annotation).decode(text, f"the signal {name!r}")


def _wait_in(arguments: bytes) -> str:
    """Return the call of the wait for errors, with its first argument, read from its pickle without loading it."""
    from pickletools import genops

    try:
        texts = (text for code, text, _ in genops(bytes(content(arguments))) if "UNICODE" in code.name)
        return f"wait_for({next(texts)!r})"
    except (StopIteration, ValueError):
        return "wait_for()"


def _shown(key: object) -> str:
    return f"node {key.hex()}" if isinstance(key, bytes) else f"node {key}"
