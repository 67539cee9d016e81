"""Chained background work in plain Python: typed, durable, across machines.

The rule: the names below and no others; each is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagorama.calls.delayed import at as at
    from dagorama.calls.delayed import later as later
    from dagorama.calls.instance_start import start as start
    from dagorama.calls.refreshed import refresh as refresh
    from dagorama.calls.resource import resource as resource
    from dagorama.calls.schedules import schedule as schedule
    from dagorama.calls.schedules import scheduled_for as scheduled_for
    from dagorama.calls.signals import wait_for as wait_for
    from dagorama.client.completed import as_completed as as_completed
    from dagorama.client.control import cancel as cancel
    from dagorama.client.control import delete as delete
    from dagorama.client.control import retry_failed as retry_failed
    from dagorama.client.control import state as state
    from dagorama.client.events import events as events
    from dagorama.client.large_values import put as put
    from dagorama.client.logs import logs as logs
    from dagorama.client.progress import watch as watch
    from dagorama.client.results import aresolve as aresolve
    from dagorama.client.results import resolve as resolve
    from dagorama.client.results import resolve_all as resolve_all
    from dagorama.client.schedules import Schedule as Schedule
    from dagorama.client.schedules import pause_schedule as pause_schedule
    from dagorama.client.schedules import resume_schedule as resume_schedule
    from dagorama.client.schedules import unschedule as unschedule
    from dagorama.client.signals import send as send
    from dagorama.code_signature import calculate_function_hash as calculate_function_hash
    from dagorama.context import CurrentNode as CurrentNode
    from dagorama.context import cancelled as cancelled
    from dagorama.context import current as current
    from dagorama.context import report as report
    from dagorama.decorators import dagorama as dagorama
    from dagorama.decorators import on_failure as on_failure
    from dagorama.definition import DAGDefinition as DAGDefinition
    from dagorama.definition import DAGInstance as DAGInstance
    from dagorama.definition import generate_instance_id as generate_instance_id
    from dagorama.errors import AccessDenied as AccessDenied
    from dagorama.errors import BrokerError as BrokerError
    from dagorama.errors import BrokerOverloaded as BrokerOverloaded
    from dagorama.errors import BrokerUnavailable as BrokerUnavailable
    from dagorama.errors import CodeMismatchException as CodeMismatchException
    from dagorama.errors import DagoramaError as DagoramaError
    from dagorama.errors import DefinitionNotRegistered as DefinitionNotRegistered
    from dagorama.errors import FailedAttempt as FailedAttempt
    from dagorama.errors import FunctionNotFound as FunctionNotFound
    from dagorama.errors import InstanceExists as InstanceExists
    from dagorama.errors import NodeCancelled as NodeCancelled
    from dagorama.errors import NodeFailed as NodeFailed
    from dagorama.errors import NotFound as NotFound
    from dagorama.errors import NotInInstance as NotInInstance
    from dagorama.errors import NotInNode as NotInNode
    from dagorama.errors import NotPicklable as NotPicklable
    from dagorama.errors import ProcessDied as ProcessDied
    from dagorama.errors import PromiseMisuse as PromiseMisuse
    from dagorama.errors import QueueTimeout as QueueTimeout
    from dagorama.errors import RequestRejected as RequestRejected
    from dagorama.errors import ReservedName as ReservedName
    from dagorama.errors import ResourceNotOpened as ResourceNotOpened
    from dagorama.errors import ResultRejected as ResultRejected
    from dagorama.errors import RetryLater as RetryLater
    from dagorama.errors import SettingsError as SettingsError
    from dagorama.errors import SignalTimeout as SignalTimeout
    from dagorama.errors import TamperedValue as TamperedValue
    from dagorama.errors import TypeMismatch as TypeMismatch
    from dagorama.errors import UncacheableArgument as UncacheableArgument
    from dagorama.errors import UnverifiedValue as UnverifiedValue
    from dagorama.errors import ValueNotReadable as ValueNotReadable
    from dagorama.errors import ValuesUnavailable as ValuesUnavailable
    from dagorama.errors import WorkerLost as WorkerLost
    from dagorama.errors import WrongInstance as WrongInstance
    from dagorama.graph.cache import Cache as Cache
    from dagorama.graph.rates import Limit as Limit
    from dagorama.graph.rates import Rate as Rate
    from dagorama.graph.submission import batch as batch
    from dagorama.models.events import EventKind as EventKind
    from dagorama.models.events import Gap as Gap
    from dagorama.models.events import InstanceEnded as InstanceEnded
    from dagorama.models.events import NodeEvent as NodeEvent
    from dagorama.models.failure import Failure as Failure
    from dagorama.models.log_record import LogRecord as LogRecord
    from dagorama.models.log_record import NodeReport as NodeReport
    from dagorama.models.outcome import outcome as outcome
    from dagorama.models.progress import FunctionProgress as FunctionProgress
    from dagorama.models.progress import Progress as Progress
    from dagorama.models.promise import DAGPromise as DAGPromise
    from dagorama.models.state import Retried as Retried
    from dagorama.models.state import State as State
    from dagorama.retry import ExponentialRetry as ExponentialRetry
    from dagorama.retry import RetryConfiguration as RetryConfiguration
    from dagorama.retry import StaticRetry as StaticRetry
    from dagorama.runner import execute_worker as execute_worker
    from dagorama.runner import execute_worker_async as execute_worker_async
    from dagorama.runner import launch_workers as launch_workers
    from dagorama.serializer import register_definition as register_definition

#: The module that defines each name: the imports above, as a table, so that `import dagorama` loads none of them.
_HOMES = {
    name: module
    for module, names in {
        "dagorama.client.control": "cancel delete retry_failed state",
        "dagorama.client.events": "events",
        "dagorama.client.large_values": "put",
        "dagorama.client.logs": "logs",
        "dagorama.client.progress": "watch",
        "dagorama.client.completed": "as_completed",
        "dagorama.client.results": "aresolve resolve resolve_all",
        "dagorama.client.schedules": "Schedule pause_schedule resume_schedule unschedule",
        "dagorama.client.signals": "send",
        "dagorama.code_signature": "calculate_function_hash",
        "dagorama.context": "CurrentNode cancelled current report",
        "dagorama.decorators": "dagorama on_failure",
        "dagorama.definition": "DAGDefinition DAGInstance generate_instance_id",
        "dagorama.errors": (
            "AccessDenied BrokerError BrokerOverloaded BrokerUnavailable CodeMismatchException DagoramaError "
            "DefinitionNotRegistered FailedAttempt FunctionNotFound InstanceExists NodeCancelled NodeFailed "
            "NotInInstance NotInNode NotPicklable ProcessDied PromiseMisuse QueueTimeout RequestRejected ReservedName "
            "ResourceNotOpened ResultRejected RetryLater SettingsError SignalTimeout TamperedValue TypeMismatch "
            "UncacheableArgument UnverifiedValue NotFound ValueNotReadable ValuesUnavailable WorkerLost WrongInstance"
        ),
        "dagorama.graph.cache": "Cache",
        "dagorama.graph.submission": "batch",
        "dagorama.calls.delayed": "at later",
        "dagorama.calls.instance_start": "start",
        "dagorama.calls.refreshed": "refresh",
        "dagorama.calls.resource": "resource",
        "dagorama.calls.schedules": "schedule scheduled_for",
        "dagorama.calls.signals": "wait_for",
        "dagorama.models.events": "EventKind Gap InstanceEnded NodeEvent",
        "dagorama.models.failure": "Failure",
        "dagorama.models.log_record": "LogRecord NodeReport",
        "dagorama.models.outcome": "outcome",
        "dagorama.models.progress": "FunctionProgress Progress",
        "dagorama.models.promise": "DAGPromise",
        "dagorama.models.state": "Retried State",
        "dagorama.graph.rates": "Limit Rate",
        "dagorama.retry": "ExponentialRetry RetryConfiguration StaticRetry",
        "dagorama.runner": "execute_worker execute_worker_async launch_workers",
        "dagorama.serializer": "register_definition",
    }.items()
    for name in names.split()
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]  # it reads the imports above


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(home), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
