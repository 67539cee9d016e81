"""`schedule(definition, "0 7 * * MON-FRI", id=...)(...)`: a call of a definition that the broker repeats.

The rule: a schedule is data in the broker. Its arguments are signed once, for all of its times, and for no other use.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, ParamSpec, TypeAlias, overload
from zoneinfo import ZoneInfo

from dagorama.api import broker_pb2
from dagorama.api.contract import LARGEST_SCHEDULED, NAMES_LARGE, schedule_digest
from dagorama.calls.functions import from_wrapper
from dagorama.client.connection import connection, is_inline
from dagorama.client.schedules import Schedule, check_schedule_id, schedule_of
from dagorama.context import run_here
from dagorama.definition import DAGDefinition, DAGInstance
from dagorama.errors import PromiseMisuse
from dagorama.graph import shipping
from dagorama.graph.constructor_arguments import constructor_bytes
from dagorama.graph.hooks import hook_message
from dagorama.graph.immediate_scope import encoded_call
from dagorama.graph.node_batch import FunctionSpec
from dagorama.graph.start_options import check_fair, started_with
from dagorama.models.texts import check_printable
from dagorama.retry import MOST
from dagorama.user_code.class_code import renew
from dagorama.user_code.names import class_name
from dagorama.values.signing import HOOK_OF_SCHEDULE, keyring

if TYPE_CHECKING:
    from dagorama.models.method_types import EntryOf, OnlyAny

P = ParamSpec("P")

Overlap: TypeAlias = Literal["skip", "queue", "allow", "replace"]
CatchUp: TypeAlias = Literal["last", "none", "all"]
_OVERLAPS, _CATCH_UPS = ("skip", "queue", "allow", "replace"), ("last", "none", "all")
#: The shortest and the longest interval in seconds.
SHORTEST, LONGEST = 1.0, float(MOST)


# A definition that is Any fits this overload only.
@overload
def schedule(
    definition: OnlyAny,
    cron: str | None = None,
    *,
    id: str,
    every: timedelta | None = None,
    tz: str | None = None,
    overlap: Overlap = "skip",
    catch_up: CatchUp = "last",
    fair: str | None = None,
) -> Callable[..., Schedule]: ...
@overload
def schedule(
    definition: EntryOf[P, Any],
    cron: str | None = None,
    *,
    id: str,
    every: timedelta | None = None,
    tz: str | None = None,
    overlap: Overlap = "skip",
    catch_up: CatchUp = "last",
    fair: str | None = None,
) -> Callable[P, Schedule]: ...
def schedule(
    definition: Any,
    cron: str | None = None,
    *,
    id: str,
    every: timedelta | None = None,
    tz: str | None = None,
    overlap: Overlap = "skip",
    catch_up: CatchUp = "last",
    fair: str | None = None,
) -> Any:
    """Return a function that is called like the definition, and creates a schedule of its instances on the broker.

    `schedule(Report(), "0 7 * * MON-FRI", tz="Europe/Berlin", id="daily-report")("EU")` starts `Report()("EU")` at
    seven on weekdays. `cron` has five fields, or six with seconds first, and is read in the time zone `tz`, an IANA
    name (UTC). With `every` instead of `cron`, an instance starts at each such interval, counted from now.

    `id`, of at most 200 characters, names the schedule on the broker. A call with the same ID replaces the schedule,
    which continues if its times are the same. Call `schedule` in each deployment: the last call decides which code and
    arguments are used. An instance has the ID of the schedule and its time, as in
    "daily-report/2026-11-25T07:00+01:00", for `attach(id=...)`; in its nodes `scheduled_for()` returns that time.

    `overlap` says what happens at a time if the last instance has not ended: "skip" starts nothing, "queue" starts one
    instance when it has ended, "allow" starts another one at once, and "replace" cancels the last one first. `catch_up`
    applies to times at which no broker ran: "last" starts an instance for the last of them, "none" for none, and "all"
    for each of them, at most 100. These start one after the other, but all at once if `overlap` is "allow", and only
    the last one starts if it is "replace".

    With a `fair` key, instances of the schedule take turns with instances of other keys, as with `start(...,
    fair=...)`.

    The entry point must be decorated. Arguments hold no promises and nothing of `put()`, and at most 64 KiB. Raises
    TypeError or ValueError for other arguments.
    """
    if not isinstance(definition, DAGDefinition) or isinstance(definition, DAGInstance):
        raise TypeError(f"schedule() takes an object of a DAGDefinition, and was given {definition!r}")
    entry = getattr(type(definition), "entrypoint", None)
    if not hasattr(entry, "original_fn"):
        raise ValueError(
            f"the entry point of {class_name(type(definition))} is not decorated: it runs where it is called, so the"
            " broker cannot start it; decorate it with @dagorama"
        )
    key = check_fair(fair) if fair is not None else ""
    rules = _Rules(_one_of("overlap", overlap, _OVERLAPS), _one_of("catch_up", catch_up, _CATCH_UPS), key)
    return _ScheduledCall(definition, check_printable(check_schedule_id(id), "id"), _times(cron, every, tz), rules)


def scheduled_for() -> datetime | None:
    """Return the time for which a schedule has started the instance of the running node, with its offset from UTC.

    It is the time of the schedule, not the time at which the instance started, and it is the same in each attempt of
    each node of the instance. Returns None in other instances, in nodes that a client has added to one, and outside of
    nodes.
    """
    run = run_here()
    if run is None or run.attempt is None or not run.attempt.scheduled:
        return None
    return datetime.fromisoformat(run.attempt.scheduled)


class _Times(NamedTuple):
    cron: str
    zone: str
    every: float  #: seconds


class _Rules(NamedTuple):
    overlap: str
    catch_up: str
    fair: str  #: empty: there is none


def _one_of(what: str, word: str, words: tuple[str, ...]) -> str:
    if word not in words:
        raise ValueError(f"{what} is {word!r}: it must be one of {', '.join(map(repr, words))}")
    return word


def _times(cron: str | None, every: timedelta | None, tz: str | None) -> _Times:
    """Return when instances are started. Raises TypeError or ValueError."""
    if (cron is None) is (every is None):
        raise TypeError('schedule() takes either a cron expression, such as "0 7 * * *", or every=timedelta(...)')
    if every is not None:
        if not isinstance(every, timedelta):
            raise TypeError(f"every is {every!r}: it must be a timedelta, such as timedelta(minutes=5)")
        if every.total_seconds() < SHORTEST:
            raise ValueError(f"every is {every!r}: it must be at least one second")
        if every.total_seconds() > LONGEST:
            raise ValueError(f"every is {every!r}: it must be at most {MOST} seconds, which is 68 years")
        if tz is not None:
            raise TypeError(f"tz is {tz!r}: an interval has no time zone, only a cron expression has one")
        return _Times("", "UTC", every.total_seconds())
    if not isinstance(cron, str):
        raise TypeError(f"cron is {cron!r}: it must be a string of five fields, such as '0 7 * * MON-FRI'")
    zone = tz if tz is not None else "UTC"
    _check_cron(cron, _zone(zone))
    return _Times(cron, zone, 0.0)


def _zone(name: str) -> ZoneInfo:
    if not isinstance(name, str):
        raise TypeError(f"tz is {name!r}: it must be the name of a time zone, such as 'Europe/Berlin'")
    if name == "localtime":
        raise ValueError("tz is 'localtime', which is another zone on each machine: use a name such as 'Europe/Berlin'")
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ValueError(
            f"tz is {name!r}, which is not a time zone that is known here: use an IANA name, such as 'Europe/Berlin'"
        ) from None


def _check_cron(cron: str, zone: ZoneInfo) -> None:
    from cronsim import CronSim, CronSimError

    try:
        next(CronSim(cron, datetime.now(UTC).astimezone(zone)))
    except CronSimError as error:
        wanted = "five fields are wanted, such as '0 7 * * MON-FRI', or six with seconds first"
        why = wanted if len(cron.split()) not in (5, 6) else str(error)
        raise ValueError(f"cron is {cron!r}, which is not a cron expression: {why}") from None
    except StopIteration:
        raise ValueError(f"cron is {cron!r}, which has no time in the next 50 years") from None


class _ScheduledCall:
    """A definition that is about to be scheduled."""

    def __init__(self, definition: DAGDefinition, id: str, times: _Times, rules: _Rules) -> None:
        self._definition = definition
        self._id = id
        self._times = times
        self._rules = rules

    def __call__(self, *args: Any, **kwargs: Any) -> Schedule:
        request = self._request(args, kwargs)
        if not is_inline():  # otherwise the nodes run in this process
            cls = type(self._definition)
            shipping.ensure_reachable(cls, renew(cls))
        reply = connection().put_schedule(request)
        return schedule_of(self._id, reply.next, reply.paused)

    def _request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> broker_pb2.PutScheduleRequest:
        cls = type(self._definition)
        decorated, ring = from_wrapper(cls.entrypoint), keyring()
        try:
            signature(decorated.function).bind(self._definition, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{decorated.function.__qualname__}(): {error}") from None
        function = decorated.spec(cls)
        name = class_name(cls)
        envelope = self._envelope(function, args, kwargs)
        return broker_pb2.PutScheduleRequest(
            id=self._id,
            definition=name,
            function=function.to_message(ring.signs_under),
            arguments=ring.sign_schedule(envelope, schedule_digest(name, self._id), function.digest),
            key=function.key_of(args, kwargs) if function.key_of is not None else "",
            hook=hook_message(self._definition, HOOK_OF_SCHEDULE, schedule_digest(name, self._id)),
            digest=started_with(self._definition, args, kwargs),
            cron=self._times.cron,
            zone=self._times.zone,
            every=self._times.every,
            overlap=self._rules.overlap,
            catch_up=self._rules.catch_up,
            fair=self._rules.fair,
        )

    def _envelope(self, function: FunctionSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        encoded = encoded_call(function, args, kwargs, None, None, constructor_bytes(self._definition))
        if encoded.refs:
            raise PromiseMisuse(
                f"schedule {self._id!r} was given {encoded.promises[0]!r}: its instances are started when that may be"
                " gone; resolve() it first"
            )
        if encoded.envelope[1] & NAMES_LARGE or len(encoded.envelope) > LARGEST_SCHEDULED - 100:
            raise ValueError(
                f"the arguments of schedule {self._id!r} are too large, or hold a value of put(): pass at most"
                f" {LARGEST_SCHEDULED >> 10} KiB, such as the name of a file, and read the rest in the node"
            )
        return encoded.envelope
