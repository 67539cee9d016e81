"""Chained background work in plain Python: typed, durable, across machines.

The rule: the names below and nothing else; each is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagorama.client.control import cancel, retry_failed, state
    from dagorama.client.large_values import put
    from dagorama.client.results import aresolve, as_completed, resolve, resolve_all
    from dagorama.code_signature import calculate_function_hash
    from dagorama.context import CurrentNode, cancelled, current
    from dagorama.decorators import dagorama
    from dagorama.definition import DAGDefinition, DAGInstance, generate_instance_id
    from dagorama.errors import (
        AccessDenied,
        BrokerError,
        BrokerOverloaded,
        BrokerUnavailable,
        CodeMismatchException,
        DagoramaError,
        DefinitionNotRegistered,
        FailedRun,
        FunctionNotFound,
        NodeCancelled,
        NodeFailed,
        NotInInstance,
        NotInNode,
        NotPicklable,
        PromiseMisuse,
        RefusedByBroker,
        ReservedName,
        RetryLater,
        SettingsError,
        TamperedValue,
        UncheckableValue,
        UnknownToBroker,
        ValueNotReadable,
        WrongInstance,
    )
    from dagorama.graph.submission import together
    from dagorama.models.failure import Failure
    from dagorama.models.outcome import outcome
    from dagorama.models.promise import DAGPromise
    from dagorama.models.state import Retried, State
    from dagorama.retry import ExponentialRetry, RetryConfiguration, StaticRetry
    from dagorama.runner import execute_worker, execute_worker_async, launch_workers
    from dagorama.serializer import register_definition

_ERRORS = "dagorama.errors"
_HOMES = {
    "AccessDenied": _ERRORS,
    "BrokerError": _ERRORS,
    "BrokerOverloaded": _ERRORS,
    "BrokerUnavailable": _ERRORS,
    "CodeMismatchException": _ERRORS,
    "CurrentNode": "dagorama.context",
    "DAGDefinition": "dagorama.definition",
    "DAGInstance": "dagorama.definition",
    "DAGPromise": "dagorama.models.promise",
    "DagoramaError": _ERRORS,
    "DefinitionNotRegistered": _ERRORS,
    "ExponentialRetry": "dagorama.retry",
    "FailedRun": _ERRORS,
    "Failure": "dagorama.models.failure",
    "FunctionNotFound": _ERRORS,
    "NodeCancelled": _ERRORS,
    "NodeFailed": _ERRORS,
    "NotInInstance": _ERRORS,
    "NotInNode": _ERRORS,
    "NotPicklable": _ERRORS,
    "PromiseMisuse": _ERRORS,
    "RefusedByBroker": _ERRORS,
    "ReservedName": _ERRORS,
    "Retried": "dagorama.models.state",
    "RetryConfiguration": "dagorama.retry",
    "RetryLater": _ERRORS,
    "SettingsError": _ERRORS,
    "State": "dagorama.models.state",
    "StaticRetry": "dagorama.retry",
    "TamperedValue": _ERRORS,
    "UncheckableValue": _ERRORS,
    "UnknownToBroker": _ERRORS,
    "ValueNotReadable": _ERRORS,
    "WrongInstance": _ERRORS,
    "aresolve": "dagorama.client.results",
    "as_completed": "dagorama.client.results",
    "calculate_function_hash": "dagorama.code_signature",
    "cancel": "dagorama.client.control",
    "cancelled": "dagorama.context",
    "current": "dagorama.context",
    "dagorama": "dagorama.decorators",
    "execute_worker": "dagorama.runner",
    "execute_worker_async": "dagorama.runner",
    "generate_instance_id": "dagorama.definition",
    "launch_workers": "dagorama.runner",
    "outcome": "dagorama.models.outcome",
    "put": "dagorama.client.large_values",
    "register_definition": "dagorama.serializer",
    "resolve": "dagorama.client.results",
    "resolve_all": "dagorama.client.results",
    "retry_failed": "dagorama.client.control",
    "state": "dagorama.client.control",
    "together": "dagorama.graph.submission",
}

__all__ = [
    "AccessDenied",
    "BrokerError",
    "BrokerOverloaded",
    "BrokerUnavailable",
    "CodeMismatchException",
    "CurrentNode",
    "DAGDefinition",
    "DAGInstance",
    "DAGPromise",
    "DagoramaError",
    "DefinitionNotRegistered",
    "ExponentialRetry",
    "FailedRun",
    "Failure",
    "FunctionNotFound",
    "NodeCancelled",
    "NodeFailed",
    "NotInInstance",
    "NotInNode",
    "NotPicklable",
    "PromiseMisuse",
    "RefusedByBroker",
    "ReservedName",
    "Retried",
    "RetryConfiguration",
    "RetryLater",
    "SettingsError",
    "State",
    "StaticRetry",
    "TamperedValue",
    "UncheckableValue",
    "UnknownToBroker",
    "ValueNotReadable",
    "WrongInstance",
    "aresolve",
    "as_completed",
    "calculate_function_hash",
    "cancel",
    "cancelled",
    "current",
    "dagorama",
    "execute_worker",
    "execute_worker_async",
    "generate_instance_id",
    "launch_workers",
    "outcome",
    "put",
    "register_definition",
    "resolve",
    "resolve_all",
    "retry_failed",
    "state",
    "together",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(home), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
