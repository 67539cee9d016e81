"""Decorated functions: their options and hashes, and their calls.

The rule: everything that is equal for all calls is computed once; a call checks its arguments, finds its line, and goes
to the scope of the instance.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from inspect import Signature, iscoroutinefunction, signature
from sys import _getframe
from types import FrameType, FunctionType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from dagorama.client.worker_thread import in_thread
from dagorama.code_signature import calculate_function_hash, keep_source
from dagorama.definition import ENTRY_CODE, DAGDefinition, DAGInstance
from dagorama.errors import NotInInstance, TypeMismatch
from dagorama.graph.cache import check_cache_key
from dagorama.graph.delays import Delay
from dagorama.graph.node_batch import FunctionSpec
from dagorama.graph.options import Codec, KeyOf, Options, check_key_names_a_parameter
from dagorama.models import stored
from dagorama.models.promise import DAGPromise, Place
from dagorama.user_code.class_code import renew
from dagorama.user_code.names import class_name, method_key
from dagorama.user_code.names import decorated_method as decorated_method

if TYPE_CHECKING:
    from dagorama.values.json_calls import JsonFunction
    from dagorama.values.json_hints import Hints

GREEDY = "greedy_execution"
#: The largest number of valid shapes of calls that are remembered for each function.
SHAPES_KEPT = 256

_Call = tuple[DAGInstance, FunctionSpec, tuple[Any, ...], dict[str, Any], Place]


@stored.named("DecoratedFunction")
class DecoratedFunction:
    """A decorated function with its options. Its pickle contains the hash of its code."""

    __slots__ = (
        "_hash", "_hints", "_json", "_key_of", "_last", "_shapes", "_signature", "_specs",
        "codec", "function", "has_greedy", "is_async", "options",
    )  # fmt: skip

    def __init__(
        self,
        function: FunctionType,
        options: Options,
        known_hash: tuple[str, str] | None = None,
        codec: Codec | None = None,
        hints: Hints | None = None,
    ) -> None:
        key = options.key
        if key is not None:
            check_key_names_a_parameter(function, *key)
        check_cache_key(function, options.cache)
        if known_hash is None:
            keep_source(function)
        self.function = function
        self.options = options
        self.is_async = iscoroutinefunction(function)
        code = function.__code__
        self.has_greedy = GREEDY in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        # Set at the first call, because a function that is being unpickled does not have its defaults yet.
        self._signature: Signature | None = None
        self._hash = known_hash
        self._key_of = None if key is None else KeyOf(function, *key)
        self._shapes: set[object] = set()
        self._specs: WeakKeyDictionary[type[DAGDefinition], FunctionSpec] = WeakKeyDictionary()
        self._last: tuple[type[DAGDefinition] | None, FunctionSpec | None] = (None, None)
        self.codec: Codec = codec or "pickle"
        self._hints = hints
        self._json: JsonFunction | None = None
        if known_hash is None and options.codec == "json":
            self.use_json(_getframe(1))

    def call(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        frame: FrameType,
        delay: Delay | None = None,
        refresh: bool = False,
    ) -> Any:
        """Return the promise of a new node, or the result of the function if it runs here (`greedy_execution`)."""
        if kwargs and not self.has_greedy and kwargs.pop(GREEDY, False):
            return self.function(self._instance(args), *args[1:], **kwargs)
        instance, spec, rest, kwargs, place = self._described(args, kwargs, frame)
        return instance._dagorama_scope.call(instance, spec, rest, kwargs, place, delay, refresh)

    def call_async(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        frame: FrameType,
        delay: Delay | None = None,
        refresh: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """Return a coroutine that creates the node and returns its promise, or the coroutine of the function itself."""
        if kwargs and not self.has_greedy and kwargs.pop(GREEDY, False):
            result: Coroutine[Any, Any, Any] = self.function(self._instance(args), *args[1:], **kwargs)
            return result
        return self._promise(*self._described(args, kwargs, frame), delay, refresh)

    async def _promise(
        self,
        instance: DAGInstance,
        spec: FunctionSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: Place,
        delay: Delay | None,
        refresh: bool,
    ) -> DAGPromise[Any]:
        scope = instance._dagorama_scope
        if scope.asks_the_broker:
            return await in_thread(scope.call, instance, spec, args, kwargs, place, delay, refresh)
        return scope.call(instance, spec, args, kwargs, place, delay, refresh)

    def _described(self, args: tuple[Any, ...], kwargs: dict[str, Any], frame: FrameType) -> _Call:
        instance = self._instance(args)
        shape = (len(args), *kwargs) if kwargs else len(args)
        if shape not in self._shapes:
            self._check(shape, args, kwargs)
        code = frame.f_code
        if code is ENTRY_CODE and frame.f_back is not None:
            frame = frame.f_back.f_back or frame
            code = frame.f_code
        return instance, self.spec(type(instance.definition)), args[1:], kwargs, (code.co_filename, frame.f_lineno)

    def _instance(self, args: tuple[Any, ...]) -> DAGInstance:
        instance = args[0] if args else None
        if isinstance(instance, DAGInstance):
            return instance
        name = self.function.__qualname__
        if isinstance(instance, DAGDefinition):
            raise NotInInstance(
                f"{name} was called on a definition; call the definition, `instance, promise = "
                f"{type(instance).__name__}(...)(...)`, and decorated methods on `self` inside its entry point"
            )
        raise NotInInstance(
            f"{name} was called without an instance: a @dagorama function is a method of a DAGDefinition, "
            f"called as self.{self.function.__name__}(...)"
        )

    def _check(self, shape: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise TypeError as a plain call would. Only the shape of a call decides whether its arguments fit."""
        if self._signature is None:
            self._signature = signature(self.function)
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.function.__qualname__}(): {error}") from None
        if len(self._shapes) < SHAPES_KEPT:
            self._shapes.add(shape)

    # --- the function of a node

    def spec(self, cls: type[DAGDefinition]) -> FunctionSpec:
        """Return the function for nodes of instances of `cls`; make it again if `__name__` has changed."""
        last, spec = self._last
        if last is not cls or spec is None or spec.python_name is not self.function.__name__:
            spec = self._specs.get(cls)
            if spec is None or spec.python_name != self.function.__name__:
                spec = self._specs[cls] = self._new_spec(cls)
            self._last = cls, spec
        return spec

    def _new_spec(self, cls: type[DAGDefinition]) -> FunctionSpec:
        key, code = method_key(cls, self.function), renew(cls)
        name = f"{class_name(cls)}.{key}"
        return FunctionSpec(
            name=name,
            hash=code.hashes[key],
            class_code=code.text,
            queue=self.options.queue_name or name.partition("@")[0],
            options=self.options,
            key_of=self._key_of,
            is_async=self.is_async,
            function=self.function,
            python_name=self.function.__name__,
            json=self.json,
        )

    def forget(self, cls: type[DAGDefinition]) -> None:
        """Make the function for nodes of `cls` again at the next call, because its code has changed."""
        self._specs.pop(cls, None)
        self._last = (None, None)

    # --- the codec

    def use_json(self, frame: FrameType) -> None:
        """Send arguments and results as JSON; `frame` runs the code around the function.

        Raises TypeMismatch if an annotation is missing or has no JSON form. Names in annotations that do not exist yet
        are looked up at the first call.
        """
        from dagorama.values.json_hints import check_annotated, hints_of, json_function, local_names

        self.codec = "json"
        check_annotated(self.function)
        names = local_names(self.function, frame)
        with suppress(NameError):
            hints = hints_of(self.function, names)
            self._json = json_function(self.function, hints, names)
            self._hints = hints

    @property
    def hints(self) -> Hints:
        """The types in the annotations of a function with codec="json"; empty if they have no JSON form."""
        with suppress(TypeMismatch):
            _ = self.json
        return self._hints or {}

    @property
    def json(self) -> JsonFunction | None:
        """The JSON types of the function; None if its codec is pickle. Raises TypeMismatch."""
        if self.codec == "pickle" or self._json is not None:
            return self._json
        from dagorama.values.json_hints import hints_of, json_function

        try:
            self._hints = self._hints or hints_of(self.function, {})
            self._json = json_function(self.function, self._hints, {})
        except NameError as error:
            raise TypeMismatch(
                f'{self.function.__qualname__} has codec="json", and its annotations use a name that does not'
                f" exist in its module ({error}): define it at the top level"
            ) from None
        return self._json

    @property
    def hash(self) -> str:
        """The hash of the function's code, computed again when its `__name__` has changed."""
        name = self.function.__name__
        if self._hash is None or self._hash[0] != name:
            self._hash = name, calculate_function_hash(self.function)
        return self._hash[1]

    def __reduce__(self) -> tuple[Any, ...]:
        known = self.function.__name__, self.hash
        if self.codec == "pickle":
            return DecoratedFunction, (self.function, self.options, known)
        # A function that is pickled by value does not bring the names in its annotations.
        return DecoratedFunction, (self.function, self.options, known, self.codec, self._hints)


def from_wrapper(wrapper: Callable[..., Any]) -> DecoratedFunction:
    found: DecoratedFunction = wrapper.__dict__["_dagorama_decorated"]
    return found
