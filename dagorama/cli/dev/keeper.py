"""Keeps a child of `dagorama dev` running: it is started again when it ends, but not for as long as it ends at once."""

from __future__ import annotations

import asyncio
from time import monotonic

from dagorama.cli.dev.child import Child, described
from dagorama.cli.dev.console import Console
from dagorama.cli.dev.roles import CannotStart, Plan, Role

#: Seconds for which a child must have run, so that its end counts as the first one.
_LONG = 10.0
#: Ends in a row after which it is given up, and the seconds before a start: doubled for each end, up to the second one.
_ENDS, _PAUSES = 6, (0.25, 5.0)


class Keeper:
    """One role, and the child that has it now."""

    def __init__(self, role: Role, plan: Plan, console: Console) -> None:
        self.role = role
        self._plan = plan
        self._console = console
        self._child: Child | None = None
        self._ends = 0  #: in a row, each soon after its start
        self._stopping = False

    async def start(self) -> None:
        """Start the child and wait until it serves. Raises CannotStart."""
        try:
            self._child = await self.role.spawn(self._plan, self._console)
        except OSError as error:
            raise CannotStart(f"the {self.role.name} cannot be started: {error.strerror}") from None
        await self.role.serving(self._child)

    async def keep(self) -> None:
        """Start the child again whenever it ends, until `stop`. Raises CannotStart if that is hopeless."""
        while (child := self._child) is not None:
            began = monotonic()
            code = await child.ended()
            if self._stopping:
                return
            self._ends = 1 if monotonic() - began > _LONG else self._ends + 1
            if code in self.role.hopeless or self._ends > _ENDS:
                raise CannotStart(f"the {self.role.name} {described(code)}")
            await self._start_again(described(code))

    async def _start_again(self, how: str) -> None:
        first, longest = _PAUSES
        pause = min(first * 2 ** (self._ends - 1), longest)
        self._console.say(f"the {self.role.name} {how}; it restarts in {pause:g} s")
        await asyncio.sleep(pause)
        if self._stopping:
            return
        try:
            await self.start()
        except CannotStart as error:  # `keep` counts its end
            self._console.say(f"{error}")

    async def stop(self, seconds: float) -> None:
        """End the child, by force after some seconds."""
        self._stopping = True
        if self._child is not None:
            await self._child.stop(seconds)

    def kill(self) -> None:
        """End the child by force at once."""
        self._stopping = True
        if self._child is not None:
            self._child.kill()
