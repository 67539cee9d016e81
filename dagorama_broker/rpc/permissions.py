"""Which role may call what, and of which kind each call is.

The rule: only admins may call what is not in the table, and a caller without a token may only check the health.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv6Address
from urllib.parse import unquote

from dagorama.api.contract import Role
from dagorama_broker.errors import PermissionDenied
from dagorama_broker.rpc.limits import Kind
from dagorama_broker.rpc.tokens import Token
from dagorama_broker.scheduler import WorkerInfo

OURS, ORIGINAL, HEALTH = "/dagorama.v1.Broker/", "/main.Dagorama/", "/grpc.health.v1.Health/"
#: The calls of KEDA, which carry their token in the request.
SCALER = "/externalscaler.ExternalScaler/"

_CLIENT, _WORKER, _READER, _SIGNALLER = Role.CLIENT, Role.WORKER, Role.READER, Role.SIGNALLER
#: The roles that may call a method, besides admins, who may call all of these. Readers must not see values,
#: and signallers may do what readers may, and send signals.
CALLS: dict[str, frozenset[Role]] = {
    OURS + call: frozenset(roles | {_SIGNALLER} if _READER in roles else roles)
    for call, roles in {
        "SubmitStream": {_CLIENT},
        "Work": {_WORKER},
        "Wait": {_CLIENT, _WORKER},
        "Exchange": {_CLIENT, _WORKER},
        "PutValue": {_CLIENT, _WORKER},
        "ImportValue": {_CLIENT, _WORKER},
        "GetSharedFolder": {_CLIENT, _WORKER},
        "GetValue": {_CLIENT, _WORKER},
        "KeepValue": {_CLIENT, _WORKER},
        "FindValue": {_CLIENT, _WORKER},
        "GetInstance": {_CLIENT, _WORKER, _READER},
        "GetStatus": {_CLIENT, _READER},
        "ListInstances": {_CLIENT, _READER},
        "ListNodes": {_CLIENT, _READER},
        "Explain": {_CLIENT, _WORKER},
        "GetNode": {_CLIENT, _READER},
        "FindIds": {_CLIENT, _READER},
        "Watch": {_CLIENT, _READER},
        "WatchQueues": {_CLIENT, _READER},
        "Events": {_CLIENT, _READER},
        "ExplainNode": {_CLIENT, _READER},
        "NameNodes": {_CLIENT, _READER},
        "ListFailures": {_CLIENT, _READER},
        "GetShape": {_CLIENT, _READER},
        "WhoAmI": {_CLIENT, _WORKER, _READER},
        "GetMap": {_CLIENT, _READER},
        "WatchNodes": {_CLIENT, _READER},
        "GetSeries": {_CLIENT, _READER},
        "ListActions": {_CLIENT, _READER},
        "GetLogs": {_CLIENT, _READER},
        "GetStack": {_CLIENT, _READER},
        "Cancel": {_CLIENT},
        "Retry": {_CLIENT},
        "Delete": {_CLIENT},
        "SendSignal": {_CLIENT, _WORKER, _SIGNALLER},
        "Rebind": set[Role](),
        "PauseQueue": set[Role](),
        "DrainWorker": set[Role](),
        "ListCache": {_CLIENT, _READER},
        "ClearCache": {_CLIENT},
        "Demand": {_WORKER, _READER},
        "WatchDemand": {_WORKER, _READER},
        "PutSchedule": {_CLIENT},
        "RemoveSchedule": {_CLIENT},
        "PauseSchedule": {_CLIENT},
        "ListSchedules": {_CLIENT, _READER},
    }.items()
} | {
    SCALER + call: frozenset({_WORKER, _READER, _SIGNALLER})
    for call in ("IsActive", "StreamIsActive", "GetMetricSpec", "GetMetrics")
}

_LOOKING = (
    "GetInstance",
    "GetStatus",
    "ListInstances",
    "ListNodes",
    "Explain",
    "GetNode",
    "FindIds",
    "Watch",
    "WatchQueues",
    "Events",
    "ExplainNode",
    "NameNodes",
    "ListFailures",
    "GetShape",
    "WhoAmI",
    "GetMap",
    "WatchNodes",
    "GetSeries",
    "ListActions",
    "GetLogs",
    "GetStack",
    "Demand",
    "WatchDemand",
    "ListSchedules",
    "ListCache",
)
_OF_LOGS = frozenset({OURS + "GetLogs", OURS + "GetStack"})
_OF_VALUES = ("PutValue", "ImportValue", "GetSharedFolder", "GetValue", "KeepValue", "FindValue")
#: The kinds of our calls; all others submit, or change what was submitted.
KINDS = {
    OURS + "Work": Kind.WORK, OURS + "Wait": Kind.WAIT, OURS + "Exchange": Kind.TALK,
    **{OURS + call: Kind.LOOK for call in _LOOKING}, **{OURS + call: Kind.VALUE for call in _OF_VALUES},
    **{call: Kind.LOOK for call in CALLS if call.startswith(SCALER)},
}  # fmt: skip


def kind_of(method: str) -> Kind:
    """Return the kind of a call. Only workers make the calls of dagorama 0.1.10."""
    return Kind.WORK if method.startswith(ORIGINAL) else KINDS.get(method, Kind.SUBMIT)


def check_role(token: Token | None, method: str) -> None:
    """Raise PermissionDenied if the role of this token may not call the method. None: no tokens are required."""
    if token is None:
        return
    if token.role is not Role.ADMIN and token.role not in CALLS.get(method, ()):
        raise PermissionDenied(f"the token {token.name!r} has the role {token.role}, which may not call {method[1:]}")
    if method not in CALLS:
        raise PermissionDenied(f"no role may call {method[1:]}")


def calls_of(token: Token | None) -> list[str]:
    """Return the names of our calls that the owner of a token may make. None: no tokens are required."""
    role = Role.ADMIN if token is None else token.role
    return [
        name.removeprefix(OURS)
        for name, roles in CALLS.items()
        if name.startswith(OURS)
        and (role is Role.ADMIN or role in roles)
        and (name not in _OF_LOGS or not _lacks_logs(token))
    ]


def may_read_logs(token: Token | None) -> bool:
    """Return whether the owner of a token may read what nodes print and log, and stacks."""
    return {OURS + name for name in calls_of(token)} >= _OF_LOGS


def _lacks_logs(token: Token | None) -> bool:
    return is_reader(token) and token is not None and not token.logs


def is_reader(token: Token | None) -> bool:
    """Return whether the caller may only look, without values: the role is reader, or signaller."""
    return token is not None and token.role in (_READER, _SIGNALLER)


def refuse_reader(token: Token | None) -> None:
    """Raise PermissionDenied if the caller is a reader or signaller, who may not read arguments and values of nodes."""
    if token is not None and is_reader(token):
        raise PermissionDenied(
            f"the token {token.name!r} has the role {token.role}, which may not read arguments and values of nodes"
        )


def check_logs(token: Token | None) -> None:
    """Raise PermissionDenied if the caller is a reader whose token does not allow logs and stacks."""
    if token is not None and _lacks_logs(token):
        raise PermissionDenied(
            f"the token {token.name!r} has the role {token.role} and does not allow logs, which may hold secrets:"
            " add `logs = true` to its record in the file of tokens"
        )


def restrict(presence: WorkerInfo, token: Token | None) -> WorkerInfo:
    """Restrict a worker to what its token allows. Raise PermissionDenied if it requests more."""
    if token is None:
        return presence
    _refuse_more(token, "tolerations", presence.tolerations, token.tolerations)
    _refuse_more(token, "queues", presence.include_queues, token.queues)
    included = presence.include_queues or token.queues or frozenset()
    return replace(presence, include_queues=included, owner=token.name)


def _refuse_more(token: Token, what: str, asked: frozenset[str], allowed: frozenset[str] | None) -> None:
    if allowed is not None and (more := asked - allowed):
        limits = f"the {what} {', '.join(sorted(allowed))}" if allowed else f"no {what}"
        raise PermissionDenied(
            f"the token {token.name!r} allows {limits}, and this worker requests {', '.join(sorted(more))}"
        )


# --- the caller of the call that is being handled ---------------------------------------------------

#: The token of the call that is being handled; None if no tokens are required.
caller: ContextVar[Token | None] = ContextVar("caller", default=None)


def caller_name() -> str:
    """Return the name of the caller's token; empty: no tokens are required."""
    token = caller.get()
    return "" if token is None else token.name


#: The name that `sharer_of` returns for the call that is being handled.
sharer: ContextVar[str] = ContextVar("sharer", default="")


def sharer_of(token: Token | None, peer: str) -> str:
    """Return the name under which a caller gets a share of the broker's limits: its token's or its host's."""
    return host_of(peer) if token is None else f"token:{token.name}"


@lru_cache(4096)  # all calls of a connection come from the same address
def host_of(peer: str) -> str:
    """Return the host in an address as gRPC writes it ("ipv4:10.0.0.7:51234"); of IPv6, the network of 64 bits."""
    family, _, rest = unquote(peer).partition(":")
    host = rest.rpartition(":")[0]
    if family != "ipv6":
        return f"{family}:{host}"
    try:
        address = IPv6Address(host.strip("[]").partition("%")[0])
    except ValueError:
        return peer
    return f"ipv4:{address.ipv4_mapped}" if address.ipv4_mapped else f"ipv6:{int(address) >> 64:016x}"
