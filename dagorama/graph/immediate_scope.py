"""The scope of an instance that exists, with the parts that all scopes share: what they offer to calls, and refuse.

The rule: a call is submitted at once, by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from typing import Any, Protocol

from dagorama.api.contract import ORIGIN_BYTES
from dagorama.client.large_values import LARGE_FROM, leave_for_submission
from dagorama.errors import TypeMismatch, WrongInstance
from dagorama.graph.constructor_arguments import packed
from dagorama.graph.delays import Delay
from dagorama.graph.node_batch import FunctionSpec, NodeBatch
from dagorama.graph.submission import submit
from dagorama.models.promise import DAGPromise, InstanceRef, Place
from dagorama.models.value_ref import ValueRef
from dagorama.values.codec import Encoded, encode_call
from dagorama.values.envelope import refreshed
from dagorama.values.out_of_band import PutLarge


class CallScope(Protocol):
    """The target of the decorated calls of an instance."""

    @property
    def asks_the_broker(self) -> bool:
        """Whether each call waits for the broker, so that async code should make it in a thread."""
        ...

    def call(
        self,
        instance: InstanceRef,
        function: FunctionSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: Place,
        delay: Delay | None = None,
        refresh: bool = False,
    ) -> DAGPromise[Any]:
        """Create the node of a call that was made at `place`; return its promise. It starts after `delay`.

        `refresh`: it runs even if its value is cached.
        """
        ...


class ImmediateScope:
    """Calls of a client on an instance that exists: each one is submitted by itself."""

    __slots__ = ("_constructor", "_definition", "_ids")

    asks_the_broker = True

    def __init__(self, definition: object | None, constructor: bytes | ValueRef | None = None) -> None:
        """Set the packed `constructor` of each call, or a `definition` whose arguments are packed at the first call."""
        self._ids: tuple[int, bytes, Iterator[int]] | None = None
        self._definition = definition
        self._constructor = constructor

    def call(
        self,
        instance: InstanceRef,
        function: FunctionSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: Place,
        delay: Delay | None = None,
        refresh: bool = False,
    ) -> DAGPromise[Any]:
        owner = instance.instance_id.bytes
        if self._definition is not None:
            self._constructor, self._definition = packed(self._definition, leave_for_submission), None
        key = None if function.key_of is None else function.key_of(args, kwargs)
        encoded = encoded_call(function, args, kwargs, LARGE_FROM, leave_for_submission, self._constructor)
        refuse_strangers(encoded, owner, function, place)
        if refresh:
            encoded = encoded._replace(envelope=refreshed(encoded.envelope))
        keys, cache_key = function.cache_keys, None
        if keys is not None:
            cache_key = keys.at_call(encoded, owner, args, kwargs, self._constructor)
        run = NodeBatch(owner, *self._new_id())
        counter = run.add(function, encoded, key, delay, cache_key=cache_key)
        submit(run)
        return DAGPromise._made(run.origin, counter, owner, function.name, args, kwargs, place)

    def _new_id(self) -> tuple[bytes, int]:
        ids = self._ids
        # A forked child must not create the same IDs.
        if ids is None or ids[0] != os.getpid():
            ids = self._ids = os.getpid(), os.urandom(ORIGIN_BYTES), count()
        return ids[1], next(ids[2])


def encoded_call(
    function: FunctionSpec,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    large_from: int | None,
    put_large: PutLarge | None,
    constructor: bytes | ValueRef | None,
    scheduled: str = "",
) -> Encoded:
    """Return the arguments of a call in an envelope, by the codec of the function.

    `scheduled`: the time for which a schedule has started the instance.
    """
    if function.json is None:
        return encode_call(
            args, kwargs, function.function,
            large_from=large_from, put_large=put_large, constructor=constructor, scheduled=scheduled,
        )  # fmt: skip
    if constructor is not None:
        raise TypeMismatch(
            f'{function.name} has codec="json", and the arguments that its definition was constructed with would be '
            "sent as a pickle: pass them to the method, or use a definition without arguments"
        )
    return function.json.encode_call(args, kwargs, large_from=large_from, put_large=put_large, scheduled=scheduled)


def refuse_strangers(encoded: Encoded, owner: bytes, function: FunctionSpec, place: Place) -> None:
    """Raise WrongInstance if a promise of another instance is among the arguments."""
    for promise in encoded.promises:
        if promise._instance_bytes is not None and promise._instance_bytes != owner:
            raise WrongInstance(
                f"{function.name} was called at {place[0]}:{place[1]} with a promise of another instance: "
                f"{promise!r}; resolve() it first, or make both calls in one instance"
            )
