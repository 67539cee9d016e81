"""Chained background work in plain Python: typed, durable, across machines.

The rule: the names below and nothing else; each is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagorama.code_signature import calculate_function_hash
    from dagorama.decorators import dagorama
    from dagorama.definition import DAGDefinition, DAGInstance, generate_instance_id, resolve
    from dagorama.errors import (
        BrokerError,
        BrokerOverloaded,
        BrokerUnavailable,
        CodeMismatchException,
        DagoramaError,
        DefinitionNotRegistered,
        FunctionNotFound,
        NodeCancelled,
        NodeFailed,
        NotInInstance,
        NotPicklable,
        PromiseMisuse,
        RefusedByBroker,
        SettingsError,
        UnknownToBroker,
        ValueNotReadable,
        WrongInstance,
    )
    from dagorama.models.promise import DAGPromise
    from dagorama.retry import ExponentialRetry, RetryConfiguration, StaticRetry
    from dagorama.runner import execute_worker, execute_worker_async, launch_workers
    from dagorama.serializer import register_definition

_ERRORS = "dagorama.errors"
_HOMES = {
    "BrokerError": _ERRORS,
    "BrokerOverloaded": _ERRORS,
    "BrokerUnavailable": _ERRORS,
    "CodeMismatchException": _ERRORS,
    "DAGDefinition": "dagorama.definition",
    "DAGInstance": "dagorama.definition",
    "DAGPromise": "dagorama.models.promise",
    "DagoramaError": _ERRORS,
    "DefinitionNotRegistered": _ERRORS,
    "ExponentialRetry": "dagorama.retry",
    "FunctionNotFound": _ERRORS,
    "NodeCancelled": _ERRORS,
    "NodeFailed": _ERRORS,
    "NotInInstance": _ERRORS,
    "NotPicklable": _ERRORS,
    "PromiseMisuse": _ERRORS,
    "RefusedByBroker": _ERRORS,
    "RetryConfiguration": "dagorama.retry",
    "SettingsError": _ERRORS,
    "StaticRetry": "dagorama.retry",
    "UnknownToBroker": _ERRORS,
    "ValueNotReadable": _ERRORS,
    "WrongInstance": _ERRORS,
    "calculate_function_hash": "dagorama.code_signature",
    "dagorama": "dagorama.decorators",
    "execute_worker": "dagorama.runner",
    "execute_worker_async": "dagorama.runner",
    "generate_instance_id": "dagorama.definition",
    "launch_workers": "dagorama.runner",
    "register_definition": "dagorama.serializer",
    "resolve": "dagorama.definition",
}

__all__ = [
    "BrokerError",
    "BrokerOverloaded",
    "BrokerUnavailable",
    "CodeMismatchException",
    "DAGDefinition",
    "DAGInstance",
    "DAGPromise",
    "DagoramaError",
    "DefinitionNotRegistered",
    "ExponentialRetry",
    "FunctionNotFound",
    "NodeCancelled",
    "NodeFailed",
    "NotInInstance",
    "NotPicklable",
    "PromiseMisuse",
    "RefusedByBroker",
    "RetryConfiguration",
    "SettingsError",
    "StaticRetry",
    "UnknownToBroker",
    "ValueNotReadable",
    "WrongInstance",
    "calculate_function_hash",
    "dagorama",
    "execute_worker",
    "execute_worker_async",
    "generate_instance_id",
    "launch_workers",
    "register_definition",
    "resolve",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(home), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
