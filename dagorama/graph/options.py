"""The options of a decorated function, checked once.

The rule: the broker applies all options; only the key of a call is computed in the process that makes the call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Signature, signature
from types import FrameType, FunctionType
from typing import TYPE_CHECKING, Any, Literal, TypeGuard
from weakref import WeakKeyDictionary

from dagorama.api.contract import HIGHEST_PRIORITY, LOWEST_PRIORITY
from dagorama.errors import PromiseMisuse
from dagorama.graph.cache import Cache
from dagorama.graph.rates import Limit, Rate, check_limit, check_rate
from dagorama.models import stored
from dagorama.models.promise import DAGPromise
from dagorama.models.texts import LONGEST_QUEUE, check_characters, check_content
from dagorama.retry import MOST, RetryConfiguration, check_positive_seconds, check_seconds, retry_decision

if TYPE_CHECKING:
    from dagorama.api.broker_pb2 import Function

#: The largest number of bytes of a concurrency key or a rate key.
LONGEST_KEY = 512

#: How arguments and results of a function are written.
Codec = Literal["pickle", "json"]
Key = Callable[..., str] | str


@stored.named("Options")
@dataclass(frozen=True)
class Options:
    """The options of `@dagorama(...)`; raises ValueError, which names the invalid option."""

    queue_name: str | None = None
    taint_name: str | None = None
    retry: RetryConfiguration | None = None
    timeout: float | None = None
    queue_timeout: float | None = None
    priority: int = 0
    max_concurrency: int | None = None
    concurrency_key: Key | None = None
    delay: float = 0
    max_deaths: int | None = None
    stream_children: bool = False
    codec: Codec | None = None  #: None: the codec of the class, which is pickle by default
    rate: Rate | None = None
    rate_key: Key | None = None
    limit: Limit | None = None
    cache: Cache | None = None

    def __post_init__(self) -> None:
        _check_text(queue_name=self.queue_name, taint_name=self.taint_name)
        if not (self.retry is None or isinstance(self.retry, RetryConfiguration)):
            raise ValueError(f"retry is {self.retry!r}: it must be a StaticRetry, an ExponentialRetry, or None")
        check_positive_seconds(timeout=self.timeout, queue_timeout=self.queue_timeout)
        check_seconds(delay=self.delay)
        _check_count(max_concurrency=self.max_concurrency, max_deaths=self.max_deaths)
        if not _is_whole(self.priority) or not LOWEST_PRIORITY <= self.priority <= HIGHEST_PRIORITY:
            bounds = f"from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}"
            raise ValueError(f"priority is {self.priority!r}: it must be a whole number {bounds}; higher goes first")
        if not isinstance(self.stream_children, bool):
            raise ValueError(f"stream_children is {self.stream_children!r}: it must be True or False")
        if self.codec not in (None, "pickle", "json"):
            raise ValueError(f'codec is {self.codec!r}: it must be "json" or "pickle"')
        check_rate(self.rate)
        check_limit(self.limit)
        self._check_keys()
        self._check_cache()

    @classmethod
    def names(cls) -> frozenset[str]:
        return frozenset(cls.__dataclass_fields__)

    @property
    def timeout_is_final(self) -> bool:
        """Whether an attempt that is stopped at its timeout is not repeated, because of `retry_on` or `give_up_on`."""
        return self.timeout is not None and retry_decision(self.retry, TimeoutError())[0]

    @property
    def key(self) -> tuple[str, Key] | None:
        """The option that says by which key the calls are counted, and its value; None: there is none."""
        if self.concurrency_key is not None:
            return "concurrency_key", self.concurrency_key
        return None if self.rate_key is None else ("rate_key", self.rate_key)

    def with_limits(self, message: Function) -> Function:
        """Add the rate and the limit to the message of a function, and return it."""
        if self.rate is not None:
            message.rate.CopyFrom(self.rate.as_message())
            message.rate_by_key = self.rate_key is not None
        if self.limit is not None:
            message.limit.CopyFrom(self.limit.as_message())
        # If its nodes have keys for the sake of the rate alone, `max_concurrency` counts all of them.
        message.concurrency_of_all = bool(self.max_concurrency and self.rate_key) and self.concurrency_key is None
        return message

    def _check_cache(self) -> None:
        if not (self.cache is None or isinstance(self.cache, Cache)):
            raise ValueError(f"cache is {self.cache!r}: it must be a Cache(...), or None")
        if self.cache is not None and self.stream_children:
            raise ValueError(
                "cache and stream_children are given: child nodes of an attempt that may yet fail cannot be part of a "
                "cached value; leave one of them out"
            )

    def _check_keys(self) -> None:
        for name, key in (("concurrency_key", self.concurrency_key), ("rate_key", self.rate_key)):
            if not (key is None or isinstance(key, str) or callable(key)):
                raise ValueError(
                    f"{name} is {key!r}: it must be the name of a parameter, or a function "
                    "that returns a text for the arguments of the call"
                )
        if self.concurrency_key is not None and self.max_concurrency is None:
            raise ValueError("concurrency_key is given without max_concurrency, the number of nodes of one key")
        if self.rate_key is not None and self.rate is None:
            raise ValueError("rate_key is given without rate, the starts of the nodes of one key")
        if None not in (self.concurrency_key, self.rate_key) and self.concurrency_key != self.rate_key:
            raise ValueError(
                f"concurrency_key is {self.concurrency_key!r} and rate_key is {self.rate_key!r}: a call has one key, "
                "so give both the same, or leave one out"
            )


_codecs: WeakKeyDictionary[type, Codec] = WeakKeyDictionary()


def set_codec(cls: type, codec: Codec | None, frame: FrameType) -> None:
    """Give the codec of a new class, or else of its bases, to the methods in its body that name none.

    `frame` runs the code around the class. Raises ValueError for an unknown codec, TypeMismatch for a method whose
    annotations are not complete.
    """
    chosen: Codec | None = codec or next((_codecs[base] for base in cls.__mro__[1:] if base in _codecs), None)
    if chosen is None:
        return
    from dagorama.graph.hooks import MARK

    Options(codec=chosen)
    _codecs[cls] = chosen
    for found in list(vars(cls).values()):
        if getattr(found, MARK, False):
            continue  # the broker adds the failure to its arguments
        decorated = getattr(found, "_dagorama_decorated", None) if isinstance(found, FunctionType) else None
        if decorated is not None and decorated.options.codec is None and chosen == "json":
            decorated.use_json(frame)


def unexpected_option(name: str) -> str:
    """Return the error message for an option that `@dagorama(...)` does not have."""
    from difflib import get_close_matches

    names = sorted(Options.names())
    likely = get_close_matches(name, names, n=1, cutoff=0.75) or [each for each in names if each.startswith(name)]
    remedy = f"did you mean {likely[0]!r}?" if likely else f"it takes {', '.join(names)}"
    return f"dagorama() got an unexpected option {name!r}; {remedy}"


class KeyOf:
    """The keys of calls of one function, computed in the process that makes the call."""

    __slots__ = ("_function", "_key", "_signature", "_what")

    def __init__(self, function: FunctionType, option: str, key: Key) -> None:
        self._function = function
        self._what = f"the {option.replace('_', ' ')} of {function.__qualname__}"
        self._key = key
        self._signature: Signature | None = None

    def __call__(self, args: tuple[object, ...], kwargs: dict[str, Any]) -> str:
        """Return the key of a call with these arguments, without `self`.

        Raises PromiseMisuse if the key depends on the value of a promise, TypeError or ValueError if it is not a valid
        key; errors of the user's function pass through.
        """
        if self._signature is None:
            self._signature = signature(self._function)
        bound = self._signature.bind(None, *args, **kwargs)
        bound.apply_defaults()
        try:
            key: object = (
                bound.arguments[self._key] if isinstance(self._key, str) else self._key(*bound.args[1:], **bound.kwargs)
            )
        except PromiseMisuse as error:
            raise self._misuse(str(error)) from error
        if isinstance(key, DAGPromise):
            raise self._misuse(f"this is {key!r}")
        return self._checked(key)

    def _misuse(self, what: str) -> PromiseMisuse:
        return PromiseMisuse(f"{self._what} is computed when it is called, before promises have values: {what}")

    def _checked(self, key: object) -> str:
        if not isinstance(key, (str, int)):
            raise TypeError(f"{self._what} is of type {type(key).__qualname__}: it must be a str or an int")
        text = str.__str__(key) if isinstance(key, str) else str(key)
        if not text:
            raise ValueError(
                f"{self._what} is empty: it must have 1 to {LONGEST_KEY} bytes; calls without a tenant or the like need"
                ' a key too, such as "none"'
            )
        size = len(check_characters(text, self._what).encode())
        if size > LONGEST_KEY:
            raise ValueError(f"{self._what} has {size} bytes; {LONGEST_KEY} are allowed")
        return text


def check_key_names_a_parameter(function: FunctionType, option: str, key: Key) -> None:
    """Raise ValueError if the key is a text that is not the name of a parameter of `function` after `self`."""
    code = function.__code__
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    if isinstance(key, str) and key not in names:
        raise ValueError(f"{option} is {key!r}, which is not a parameter of {function.__qualname__}")


def _check_text(**fields: object) -> None:
    for name, value in fields.items():
        if not (value is None or isinstance(value, str)):
            raise ValueError(f"{name} is {value!r}: it must be a text, or None")
        if value is not None:
            check_content(value, name, 0, LONGEST_QUEUE)


def _check_count(**fields: object) -> None:
    for name, value in fields.items():
        if value is not None and not (_is_whole(value) and 1 <= value <= MOST):
            raise ValueError(f"{name} is {value!r}: it must be a whole number from 1 to {MOST}, or None")


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
