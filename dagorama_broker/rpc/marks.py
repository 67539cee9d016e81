"""Reads and writes what users say of instances: IDs, labels, priorities, fair keys.

Raises InvalidArgument if one is invalid.
"""

from __future__ import annotations

from collections.abc import Mapping

from dagorama.api import broker_pb2 as pb
from dagorama.api.contract import LONGEST_FAIR, LONGEST_LABEL, LONGEST_LABEL_VALUE, LONGEST_NAME, MOST_LABELS
from dagorama_broker.errors import InvalidArgument
from dagorama_broker.model.queries import InstanceMarks
from dagorama_broker.rpc.fields import check_text
from dagorama_broker.rpc.functions import hook_of
from dagorama_broker.scheduler import HIGHEST, LOWEST, Start

#: Bytes of the digest of what an instance is started with.
LONGEST_DIGEST = 64


def start_of(new: pb.NewInstance) -> Start | None:
    """Return what the user has said of a new instance; None: nothing."""
    hook = hook_of(new.hook) if new.HasField("hook") else None
    if not (new.name or new.labels or new.priority or new.fair or hook):
        return None
    check_user_id(new.name)
    if len(new.digest) > LONGEST_DIGEST:
        raise InvalidArgument(f"the digest of an instance has {len(new.digest)} bytes; {LONGEST_DIGEST} are allowed")
    if not LOWEST <= new.priority <= HIGHEST:
        raise InvalidArgument(f"the priority of an instance is {new.priority}; {LOWEST} to {HIGHEST} are allowed")
    return Start(new.name, new.digest, new.priority, labels_of(new.labels), hook, checked_fair(new.fair))


def checked_fair(fair: str) -> str:
    """Return a fair key as it came; empty: there is none. Raises InvalidArgument."""
    if len(fair) > LONGEST_FAIR:
        raise InvalidArgument(f"the fair key of an instance has {len(fair)} characters; {LONGEST_FAIR} are allowed")
    return check_text(fair, "the fair key of an instance")


def labels_of(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return labels in their order."""
    if len(labels) > MOST_LABELS:
        raise InvalidArgument(f"an instance has {len(labels)} labels; {MOST_LABELS} are allowed")
    for label, value in labels.items():
        if not 0 < len(label) <= LONGEST_LABEL:
            raise InvalidArgument(f"a label has {len(label)} characters; 1 to {LONGEST_LABEL} are allowed")
        if len(value) > LONGEST_LABEL_VALUE:
            raise InvalidArgument(
                f"the value of the label {label!r} has {len(value)} characters; {LONGEST_LABEL_VALUE} are allowed"
            )
        check_text(label, "a label")
        check_text(value, f"the value of the label {label!r}")
    return tuple(sorted(labels.items()))


def check_user_id(name: str) -> str:
    """Return a user's ID of an instance as it came."""
    if len(name) > LONGEST_NAME:
        raise InvalidArgument(f"the ID of an instance has {len(name)} characters; {LONGEST_NAME} are allowed")
    return check_text(name, "the ID of an instance")


def add_marks(info: pb.InstanceInfo, marks: InstanceMarks | None, priority: int) -> None:
    """Write what the user has said of an instance."""
    info.priority = priority
    if marks is not None:
        info.name, info.digest, info.fair = marks.name, marks.digest, marks.fair
        info.labels.update(marks.labels)
