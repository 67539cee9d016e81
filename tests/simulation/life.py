"""One life from one seed: a phase of faults, then a phase in which everything heals and has to drain."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from dagorama_broker.engine.broker import Broker
from dagorama_broker.engine.commits import CommitExecutor
from dagorama_broker.engine.retention_policy import RetentionPolicy
from dagorama_broker.errors import StoreError
from dagorama_broker.rpc.limits import CallLimiter, RequestLimits, WorkerConfig
from dagorama_broker.rpc.memory_guard import MemoryGuard
from dagorama_broker.rpc.service import BrokerService
from dagorama_broker.scheduler import Limits, Scheduler, Timing
from dagorama_testing.loop import START
from tests.support.records import begun

from .bounds import CACHE, bounded
from .client import SimulatedClient
from .loop import WALL, Clock, Host, Livelock, SimulatedLoop, simulated
from .network import Network, Server
from .person import SimulatedPerson
from .programs import Plan, digest
from .store import Disk, Injected
from .thief import Thief
from .watcher import Violation, Watcher
from .worker import SimulatedWorker

LEASE, HEARTBEAT, RECONNECT = 3.0, 1.0, 0.5
#: Seconds of faults, seconds to come to rest after them, and seconds in which all has to end.
FAULTY, SETTLE, DRAIN = 10.0, 6.0, 240.0
#: Slots, tolerations, queues excluded.
KINDS: tuple[tuple[int, tuple[str, ...], tuple[str, ...]], ...] = (
    (2, ("GPU",), ()), (1, (), ()), (1, ("GPU",), ("plain",)),
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    seed: int
    violation: Violation | None
    trace: list[tuple[object, ...]]
    digest: str
    nodes: int
    starts: int
    restarts: int
    faults: int
    messages: int
    commits: int


class Life:
    """Of which kind: a subclass has other clients, another watcher, or another broker."""

    CLIENT: type[SimulatedClient] = SimulatedClient
    HAS_PERSON = True  #: who rebinds and retries
    WATCHER: type[Watcher] = Watcher
    PLAN: type[Plan] = Plan
    PERSON: type[SimulatedPerson] = SimulatedPerson
    KEEPING = RetentionPolicy()
    WALL_JUMPS = True

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.loop = SimulatedLoop(self.chance)  # type: ignore[abstract]  # it lacks files and sockets
        self.clock = Clock(self.loop)
        self.disk = Disk()
        self.disk.secret = self.chance.randbytes(32)
        self.plan = self.PLAN(seed)
        self.network = Network(self.loop)
        self.watcher = self.WATCHER(self.loop, self.disk, self.plan)
        self.network.broke = lambda error: self.watcher.break_off("no handler breaks", repr(error))
        self.broker: Broker | None = None
        self.host = Host("no broker yet")
        self.host.alive = False
        self.workers: list[SimulatedWorker] = []
        self.deaths: dict[str, int] = {}
        self.clients = [self.CLIENT(self.network, self.watcher, f"c{number}") for number in range(2)]
        self.person = self.PERSON(self.network, self.watcher)
        self.hosts = [peer.host for peer in self._peers()]  #: all that ever were
        self.step = self.chance.choice((1, 3, 5_000))  #: nodes that the broker makes, or tells of an end, in one go
        self.strikes = self.chance.choice((0, 3, 6, 9, 12))  #: that are planned
        self.faults = 0
        self._workers_made = self._thieves = 0
        self._cache_bytes = CACHE  # of envelopes that a broker keeps in memory

    # --- the whole ------------------------------------------------------------------------------------

    def run(self) -> Result:
        with bounded(self.seed) as self._cache_bytes, simulated(self.loop, self.clock):
            try:
                self._live()
            except Livelock as error:
                self.watcher.break_off("everything drains", str(error))
                self._end()
        watcher = self.watcher
        return Result(
            self.seed,
            watcher.violation,
            watcher.trace,
            digest(repr(watcher.trace)),
            len(watcher.names),
            watcher.starts,
            watcher.restarts,
            self.faults,
            self.network.messages,
            watcher.commits,
        )

    def begin(self) -> None:
        """Broker, workers, clients and what will go wrong."""
        self._start_broker()
        for kind in range(len(KINDS)):
            self._start_worker(kind)
        for client in self.clients:
            client.start(self.chance.randint(1, 3), FAULTY * 0.6)
        if self.HAS_PERSON:
            self.person.start(FAULTY)
        for _ in range(self.strikes):
            self.loop.world_at(START + self.chance.uniform(0.2, FAULTY), self._strike)

    def _live(self) -> None:
        self.begin()
        if self._goes_on(FAULTY):
            self._heal()
        if self._goes_on(SETTLE):
            self.watcher.calm = True
            late = self.CLIENT(self.network, self.watcher, "late")
            self.clients.append(late)
            self.hosts.append(late.host)
            late.start(1, 0.5)
        if self._goes_on(DRAIN, self._has_drained):
            self._look_back()
        self._end()

    def _goes_on(self, seconds: float, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Whether all is well after so long, or when it is over."""
        watcher = self.watcher
        ended = self.loop.run_until(self.loop.now + seconds, lambda: watcher.violation is not None or is_over())
        if seconds == DRAIN and not ended:
            waiting = [client.name for client in self.clients if client.busy]
            text = f"nodes {self.watcher.unfinished}, clients {waiting} still wait after {DRAIN} s"
            watcher.break_off("everything drains", text)
        return watcher.violation is None

    def _has_drained(self) -> bool:
        peers: list[SimulatedClient | SimulatedPerson] = [*self.clients, self.person]
        if any(peer.busy for peer in peers) or self.watcher.unfinished:
            return False
        return not any(child.held or child.answered for worker in self.workers for child in worker.children)

    def _look_back(self) -> None:
        # What was told last is on its way still, and what is timed out of date goes when its time comes.
        self.loop.run_until(self.loop.now + 8.0, lambda: self.watcher.violation is not None)
        submitted = {prefix: programs for client in self.clients for prefix, programs in client.submitted.items()}
        self.watcher.check_end(submitted)
        if self.broker is not None and self.watcher.violation is None:
            self.watcher.check_empty(self.broker)
        for failure in self.loop.failures:
            self.watcher.break_off("nothing breaks unseen", repr(failure))

    def _end(self) -> None:
        self.loop.events = 0
        # A stream that was just closing takes the first cancelling for its own.
        for _ in range(3):
            for host in self.hosts:
                self.loop.kill(host)
            self.loop.run_until(self.loop.now + 0.5)

    # --- programs -------------------------------------------------------------------------------------

    def _start_broker(self) -> None:
        if self.host.alive:
            return
        self.host = Host(f"broker{self.watcher.restarts}")
        self.hosts.append(self.host)
        self.loop.on(self.host, self._serve(self.host))

    async def _serve(self, host: Host) -> None:
        """As `server.serve` does, without gRPC."""
        epoch = await self.loop.run_in_executor(None, begun, self.disk)
        limits = Limits(losses=1_000, step=self.step, large=self.step)
        scheduler = Scheduler(epoch, limits, Timing(lease=LEASE, reconnect_wait=RECONNECT))
        live = await self.loop.run_in_executor(None, self.disk.live)
        scheduler.restore(live, self.loop.now, self.clock.wall)
        broker = self.broker = Broker(scheduler, self.disk, self._cache_bytes, self.KEEPING, CommitExecutor(few=0))
        self.watcher.watch(broker)
        memory = MemoryGuard(1 << 40, broker.memory_size, lambda: 0)
        service = BrokerService(broker, WorkerConfig(heartbeat=HEARTBEAT), RequestLimits(), memory, CallLimiter(100))
        self.network.serve(Server(host, service))
        self.watcher.note("serving", epoch)
        self.watcher.serving_since = self.loop.now
        try:
            await broker.run()
        except StoreError as error:
            if host.alive:
                if not isinstance(error, Injected):
                    self.watcher.break_off("one result", f"the store refuses: {error}")
                self.loop.world_at(self.loop.now, self._broker_dies, 0.2)
        except Exception as error:
            self.watcher.break_off("the broker lives", repr(error))

    def _broker_dies(self, downtime: float) -> None:
        self.watcher.note("the broker dies")
        self.watcher.disturbed_at = self.loop.now + downtime
        self.watcher.restarts += 1
        self.watcher.rates.broker_died()
        self.loop.kill(self.host)
        self.network.server_died()
        self.broker = None
        self.loop.world_at(self.loop.now + downtime, self._start_broker)

    def _start_worker(self, kind: int) -> None:
        self._workers_made += 1
        slots, tolerations, exclude = KINDS[kind]
        name = f"w{self._workers_made}k{kind}"
        worker = SimulatedWorker(self.network, self.watcher, name, self.deaths, slots, tolerations, exclude)
        self.workers.append(worker)
        worker.link.given_up = lambda: self.watcher.given_up(worker)
        worker.link.replaced = lambda: self.watcher.replaced(worker, self.broker)
        self.watcher.links[name] = worker.link
        self.hosts.append(worker.host)
        worker.start()

    # --- faults ---------------------------------------------------------------------------------------

    def _strike(self) -> None:
        strikes = (
            self._crash, self._crash, self._crash, self._freeze, self._freeze, self._spoil_commit,
            self._slow_disk, self._cut, self._cut, self._cut, self._block, self._block, self._kill_worker,
            self._stop_worker, self._stop_worker, self._stop_worker, self._kill_child, self._kill_child,
            self._dismiss, self._flap, self._flap, self._steal, self._steal, self._steal,
        )  # fmt: skip
        strike = self.chance.choice(strikes)
        self.watcher.note(strike.__name__)
        self.faults += 1
        strike()

    def _crash(self) -> None:
        if not self.host.alive:
            return
        if self.WALL_JUMPS and self.chance.random() < 0.15:
            self.clock.wall += self.chance.choice((-86_400.0, -3_600.0, 3_600.0))
            self.watcher.wall_jumped = True
        self._broker_dies(self.chance.choice((0.0, 0.1, 1.0, 4.0)))

    def _freeze(self) -> None:
        """It stands still, for longer than a lease or not; nobody is to blame for the silence then."""
        seconds, host = self.chance.choice((0.3, 2.0, 4.0, 7.0)), self.host
        self.loop.stop_host(host)
        self.watcher.disturbed_at = self.loop.now + seconds
        self.loop.world_at(self.loop.now + seconds, self.loop.resume, host)

    def _spoil_commit(self) -> None:
        self.disk.fails_next = self.chance.choice(("before", "after"))

    def _slow_disk(self) -> None:
        self.loop.slow_disk = self.chance.choice((10.0, 100.0, 300.0))
        self.loop.world_at(self.loop.now + 1.0, setattr, self.loop, "slow_disk", 1.0)

    def _cut(self) -> None:
        self.chance.choice(self._peers()).link.cut()

    def _flap(self) -> None:
        """A connection that breaks again and again: its worker comes back each time with what it holds."""
        link = self.chance.choice(self._living()).link
        pause = self.chance.choice((0.2, 0.4, 0.8))
        for number in range(self.chance.randint(3, 8)):
            self.loop.world_at(self.loop.now + number * pause, link.cut)

    def _steal(self) -> None:
        victim = max(self._living(), key=lambda worker: sum(len(child.held) for child in worker.children))
        self._thieves += 1
        thief = Thief(self.network, self.watcher, f"thief{self._thieves}", victim)
        self.hosts.append(thief.host)
        victim.link.cut()  # then it comes while its victim is on the way back
        self.loop.world_at(self.loop.now + self.chance.uniform(0.0, 0.1), thief.start)

    def _block(self) -> None:
        """A partition: what is sent meanwhile arrives later, or the connection is found broken."""
        link = self.chance.choice(self._peers()).link
        link.block(self.chance.choice((0.5, 2.0, 5.0, 8.0)))
        if self.chance.random() < 0.6:
            link.cut()

    def _kill_worker(self) -> None:
        worker = self.chance.choice(self._living())
        self.loop.kill(worker.host)
        worker.link.cut()
        self._replace(worker)

    def _stop_worker(self) -> None:
        """A zombie: it goes on past its lease as if nothing had been."""
        worker, seconds = self.chance.choice(self._living()), self.chance.choice((1.0, 4.0, 8.0))
        worker.disturbed_at = self.loop.now + seconds
        self.loop.stop_host(worker.host)
        self.loop.world_at(self.loop.now + seconds, self.loop.resume, worker.host)

    def _kill_child(self) -> None:
        """Only where nothing runs that would count it: who dies by itself is in the plan."""
        worker = self.chance.choice(self._living())
        self.loop.on(worker.host, worker.lose_idle_child())

    def _dismiss(self) -> None:
        worker = self.chance.choice(self._living())
        self.loop.on(worker.host, worker.leave())
        self._replace(worker)

    def _replace(self, worker: SimulatedWorker) -> None:
        if worker in self.workers:  # else it stands for one where there is none just now
            self.workers.remove(worker)
        self.loop.world_at(self.loop.now + self.chance.uniform(0.0, 2.0), self._start_worker, int(worker.name[-1]))

    def _living(self) -> list[SimulatedWorker]:
        return self.workers or [SimulatedWorker(self.network, self.watcher, "w0k0", self.deaths, 1, (), ())]

    def _peers(self) -> list[SimulatedWorker | SimulatedClient | SimulatedPerson]:
        return [*self.workers, *self.clients, self.person]

    def _heal(self) -> None:
        self.watcher.note("healed")
        self.network.faulty = False
        self.loop.slow_disk, self.disk.fails_next = 1.0, ""
        self.clock.wall = WALL - START  # somebody sets it right, while the broker runs
        for host in [self.host, *(peer.host for peer in self._peers())]:
            if host.stopped:
                self.loop.resume(host)
        for peer in self._peers():
            peer.link.blocked_until = 0.0
        self._start_broker()
        for kind in range(len(KINDS)):
            self._start_worker(kind)


def run(seed: int, life: type[Life] = Life) -> Result:
    logger = logging.getLogger("Dagorama")
    kept, logger.disabled = logger.disabled, True  # that brokers are gone is what it is about
    try:
        return life(seed).run()
    finally:
        logger.disabled = kept
