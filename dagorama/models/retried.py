"""The result of a retry: the number of nodes that go on, with details as attributes."""

from __future__ import annotations

from typing import NamedTuple


class Unservable(NamedTuple):
    """A function of retried nodes that no connected worker may run."""

    function: str  #: "package.module:Class.method"
    hash: str  #: of the code that its nodes wait for
    deployed: tuple[str, ...]  #: hashes of the code that connected workers have instead
    reason: str


class Retried(int):
    """How many nodes go on: those that run again and those that wait again."""

    queued: int  #: nodes that run again
    waiting: int  #: nodes that wait for others again
    completed: int  #: of these, the ones that had completed; only downstream
    used_failures: int  #: nodes that were given one of the failures as a value and were not run again
    adopted: int  #: nodes that are run by other code than before; only with new code
    unservable: tuple[Unservable, ...]  #: functions of these nodes that no connected worker may run, as far as known

    def __new__(
        cls, queued: int, waiting: int, completed: int = 0, used_failures: int = 0,
        adopted: int = 0, unservable: tuple[Unservable, ...] = (),
    ) -> Retried:
        made = super().__new__(cls, queued + waiting)
        made.queued, made.waiting, made.completed = queued, waiting, completed
        made.used_failures, made.adopted, made.unservable = used_failures, adopted, unservable
        return made

    def __reduce__(self) -> tuple[type[Retried], tuple[object, ...]]:
        return Retried, (
            self.queued, self.waiting, self.completed, self.used_failures, self.adopted, self.unservable,
        )  # fmt: skip

    @property
    def warnings(self) -> list[str]:
        """What a person should know beside the number, each in a sentence."""
        used = [_used(self.used_failures)] if self.used_failures else []
        return used + [_explained(each) for each in self.unservable]


def _used(count: int) -> str:
    nodes = "1 node has used this failure and was" if count == 1 else f"{count} nodes have used this failure and were"
    return f"{nodes} not run again; use --downstream, or downstream=True"


def _explained(each: Unservable) -> str:
    text = f"no connected worker may run {each.function}: {each.reason}"
    if each.deployed:
        text += "; use --new-code, or new_code=True, to have these nodes run by the code that is deployed"
    return text
