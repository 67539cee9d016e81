"""Reads the metadata of a trigger of KEDA: which pool it scales, and the token of its caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dagorama.api import broker_pb2 as pb
from dagorama.api import externalscaler_pb2 as scaler_pb
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.rpc.fields import LONGEST_NAME, bounded

#: The key of the token. KEDA replaces the value of a key that ends in FromEnv by a variable of the scaled pod.
TOKEN = "tokenFromEnv"
#: Keys that KEDA itself reads, and passes on.
_OF_KEDA = frozenset({
    "scalerAddress", "enableTLS", "unsafeSsl", "caCert", "tlsCertFile", "tlsClientCert", "tlsClientKey",
})  # fmt: skip
_LISTS = {"includeQueues": "include_queues", "excludeQueues": "exclude_queues", "tolerations": "tolerations"}
_NUMBERS = ("horizon", "share")
_KNOWN = (*_LISTS, "keyIds", "slotsPerPod", *_NUMBERS, TOKEN)
#: Slots that one pod may have.
MOST_SLOTS = 10_000


class Trigger(NamedTuple):
    """A pool as the metadata of a trigger describe it."""

    pool: pb.DemandRequest
    any_key: bool  #: signing keys are not named, so that nodes with any key count
    slots_per_pod: int


def read_trigger(metadata: Mapping[str, str]) -> Trigger:
    """Return what metadata say. Raise InvalidArgument, which never repeats the value of a key that may be secret."""
    for key in metadata:
        _check_key(key)
    asked = pb.DemandRequest()
    for key, field in _LISTS.items():
        getattr(asked, field).extend(_names(metadata, key))
    asked.key_ids.extend(_key_ids(metadata))
    for key in _NUMBERS:
        if text := metadata.get(key, "").strip():
            setattr(asked, key, _number(key, text))
    return Trigger(asked, not asked.key_ids, _slots_per_pod(metadata))


def metadata_of(request: scaler_pb.ScaledObjectRef | scaler_pb.GetMetricsRequest) -> Mapping[str, str]:
    """Return the metadata in a request of KEDA."""
    trigger = request.scaledObjectRef if isinstance(request, scaler_pb.GetMetricsRequest) else request
    return trigger.scalerMetadata


def token_of(metadata: Mapping[str, str]) -> str | None:
    """Return the token of the caller; None: there is none."""
    return metadata.get(TOKEN, "").strip() or None


def _check_key(key: str) -> None:
    if key == "token":
        raise InvalidArgument(
            f"the metadata of a trigger must not hold a token, which everyone could read there: name a variable of the"
            f" scaled pod in {TOKEN}"
        )
    if key not in _KNOWN and key not in _OF_KEDA:
        raise InvalidArgument(
            f"the metadata of a trigger have an unknown key, {bounded(key, 100)!r}; known are {', '.join(_KNOWN)}"
        )


def _names(metadata: Mapping[str, str], key: str) -> list[str]:
    text = metadata.get(key, "").strip()
    if not text:
        return []
    if len(text) > LONGEST_NAME * 10:
        raise InvalidArgument(f"{key} of a trigger has {len(text)} characters; {LONGEST_NAME * 10} are allowed")
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InvalidArgument(f"{key} of a trigger has an empty name: write the names with one comma between two")
    return names


def _key_ids(metadata: Mapping[str, str]) -> list[bytes]:
    try:
        return [bytes.fromhex(id) for id in _names(metadata, "keyIds")]
    except ValueError:
        raise InvalidArgument(
            "keyIds of a trigger must be hexadecimal, as `dagorama keys list` prints the IDs of keys"
        ) from None


def _number(key: str, text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not found:
        raise InvalidArgument(f"{key} of a trigger is {bounded(text, 100)!r}, and must be a number above 0")
    return found


def _slots_per_pod(metadata: Mapping[str, str]) -> int:
    text = metadata.get("slotsPerPod", "").strip() or "1"
    slots = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if not 1 <= slots <= MOST_SLOTS:
        raise InvalidArgument(
            f"slotsPerPod of a trigger is {bounded(text, 100)!r}, and must be the --concurrency of the pool's workers,"
            f" 1 to {MOST_SLOTS:,}"
        )
    return slots
