"""Pools on Dask: dagorama workers next to the Dask workers of a scheduler, or of a cluster that the pool scales.

With a scheduler's address, the pool uses the Dask workers that are there. With a cluster object, such as one of
dask-jobqueue, it also asks the cluster for Dask workers, and gives them back when their dagorama workers have left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Unpack

from dagorama.pools.engine import EngineRefused, Phase, text_of
from dagorama.pools.options import PoolKeywords, PoolOptions
from dagorama.pools.pool import Pool
from dagorama.pools.worker_spec import GPU, WorkerSpec

#: The address of each Dask worker, and its state for the pool, or an error, by its name. None: it has no plugin yet.
_States = dict[str, tuple[str, "str | BaseException | None"]]

#: Seconds for an answer of the scheduler or of Dask workers.
TIMEOUT_S = 15.0
#: Seconds for which a Dask worker without a dagorama worker is kept, because the next demand may come soon.
KEPT_S = 5.0


class DaskEngine:
    """Runs workers next to Dask workers; the IDs of its members are the names of the Dask workers.

    `address` is a scheduler's, or `cluster` a cluster of which the pool is the only user. `resources` are names of
    resources: only Dask workers that have all of them are used.
    """

    def __init__(
        self, worker: WorkerSpec, address: str = "", *, cluster: Any = None, resources: Sequence[str] = ()
    ) -> None:  # fmt: skip
        """Connect to the scheduler. Raises EngineRefused if Dask is missing or no scheduler answers."""
        self._worker = worker
        self._address = address
        self._cluster = cluster
        self._resources = frozenset(resources)
        self._client: Any = None
        if cluster is not None and not hasattr(cluster, "worker_spec"):
            raise EngineRefused(
                f"a pool cannot scale a {type(cluster).__name__}, which does not let it choose the workers to close:"
                " give the pool the address of its scheduler"
            )
        self._unused: dict[str, float] = {}  # Dask workers of the cluster whose dagorama workers have left, since when
        with self._asking():
            self._connected()

    # --- Engine -----------------------------------------------------------------------------------------

    def start(self, n: int, worker: WorkerSpec) -> list[str]:
        with self._asking():
            started: list[str] = []
            states = self._states()
            for name, address in _unoccupied(states)[:n]:
                if self._client.run(_dask().start_there, worker, workers=[address])[address]:
                    started.append(name)
                    self._unused.pop(name, None)
            started += self._requested(n - len(started))
        if not started:
            _refuse_broken(states)
        return started

    def alive(self) -> Mapping[str, Phase]:
        with self._asking():
            states = self._states()
            found = {name: Phase.RUNNING for name, (_, state) in states.items() if state == _dask().RUNNING}
            if self._cluster is not None:
                _refuse_broken(states)  # otherwise more and more of them would be requested
                self._give_back({name for name, (_, state) in states.items() if state == _dask().ENDED})
                arrived = {name for name, (_, state) in states.items() if state is not None}
                expected = {f"{name}" for name in self._cluster.plan} - arrived
                found.update(dict.fromkeys(sorted(expected), Phase.PENDING))
            return found

    def drain(self, ids: Sequence[str]) -> None:
        with self._asking():
            states = self._states()
            addresses = [states[id][0] for id in ids if id in states]
            if addresses:
                self._client.run(_dask().drain_there, self._worker.pool, workers=addresses, on_error="ignore")
            pending = [id for id in ids if id not in states]
            if pending and self._cluster is not None:
                self._scale_down(pending)

    # --- the end ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Remove the plugin, so that Dask workers that join later start no dagorama workers, and disconnect."""
        with self._asking():
            self._connected().unregister_worker_plugin(_dask().plugin_name(self._worker.pool))
            self._client.close()

    # --- Dask -------------------------------------------------------------------------------------------

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn errors of Dask into ours. A lost connection is established again by the next call."""
        try:
            yield
        except ImportError as error:
            raise EngineRefused(
                f"a pool on Dask needs a package: pip install 'dagorama[dask]', also for the Dask workers ({error})"
            ) from None
        except (OSError, TimeoutError, ValueError, KeyError, RuntimeError) as error:
            self._disconnect()
            where = self._address or "the cluster"
            raise EngineRefused(f"the Dask scheduler at {where} does not answer: {text_of(error)}") from None

    def _connected(self) -> Any:
        """Return a client whose scheduler knows the plugin."""
        plugin = _dask()
        if self._client is None or self._client.status != "running":
            from distributed import Client  # pyright: ignore[reportMissingImports]  # an extra

            where = self._address if self._cluster is None else self._cluster
            self._client = Client(where, timeout=TIMEOUT_S, set_as_default=False)
            self._register(plugin.DagoramaPlugin(self._worker, eager=self._cluster is not None))
        return self._client

    def _register(self, plugin: Any) -> None:
        try:
            self._client.register_plugin(plugin)
        except Exception as error:  # Dask raises the texts of errors in its workers as plain exceptions
            self._disconnect()
            raise EngineRefused(
                f"Dask workers refuse the plugin of the pool: {text_of(error)}. Install dagorama in their environment"
            ) from None

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close(timeout=1)

    def _states(self) -> _States:
        """Return the address of each usable Dask worker, and the state of the plugin there, by its name."""
        client = self._connected()
        workers = client.scheduler_info(n_workers=-1)["workers"]
        usable = {
            address: f"{info['name']}"
            for address, info in workers.items()
            if self._resources <= {name for name, amount in info["resources"].items() if amount > 0}
        }
        states = client.run(_dask().state_there, self._worker.pool, workers=list(usable), on_error="return")
        return {name: (address, states.get(address)) for address, name in usable.items()}

    # --- a cluster that the pool scales -----------------------------------------------------------------

    def _requested(self, n: int) -> list[str]:
        """Ask the cluster for `n` more Dask workers, and return their names. Their plugin starts dagorama workers."""
        if n <= 0 or self._cluster is None:
            return []
        before = {f"{name}" for name in self._cluster.plan}
        self._cluster.scale(len(before) + n)
        return sorted({f"{name}" for name in self._cluster.plan} - before)

    def _give_back(self, ended: set[str]) -> None:
        """Scale the cluster down by Dask workers that had no dagorama worker for a while."""
        now = monotonic()
        self._unused = {name: self._unused.get(name, now) for name in ended}
        over = [name for name, since in self._unused.items() if now - since >= KEPT_S]
        if over:
            self._scale_down(over)

    def _scale_down(self, names: Sequence[str]) -> None:
        """Close Dask workers; of a job with several, only if all of them are named."""
        groups = {
            name: {f"{name}{suffix}" for suffix in spec.get("group", ("",))}
            for name, spec in self._cluster.worker_spec.items()
        }
        own = [name for name, members in groups.items() if members <= set(names)]
        self._cluster.sync(self._cluster.scale_down, own)


class DaskPool(Pool):
    """A pool next to the Dask workers of a scheduler, or of a cluster that it scales.

    Use it in a `with` block. With `resources=["GPU"]` it uses only Dask workers that have this resource, and runs nodes
    with the taint `GPU`. Raises EngineRefused if Dask is not installed or no scheduler answers, and SettingsError.
    """

    def __init__(
        self, address: str = "", *, cluster: Any = None, resources: Sequence[str] = (), **options: Unpack[PoolKeywords]
    ) -> None:
        chosen = PoolOptions.of("dask", options).with_gpu(GPU in resources)
        self._dask = DaskEngine(chosen.worker(), address, cluster=cluster, resources=resources)
        super().__init__(self._dask, chosen)

    def _release(self) -> None:
        self._dask.close()


def _dask() -> Any:
    """Return the module that needs Dask."""
    from dagorama.pools import dask_plugin

    return dask_plugin


def _unoccupied(states: _States) -> list[tuple[str, str]]:
    """Return the names and addresses of Dask workers without a dagorama worker."""
    free = (_dask().FREE, _dask().ENDED)
    return [(name, address) for name, (address, state) in states.items() if state in free]


def _refuse_broken(states: _States) -> None:
    """Raise EngineRefused if Dask workers cannot be asked, for example because dagorama is not installed there."""
    broken = {name: state for name, (_, state) in states.items() if isinstance(state, BaseException)}
    for name, error in broken.items():
        raise EngineRefused(
            f"{len(broken)} Dask workers cannot start dagorama workers; {name}: {text_of(error)}. Install dagorama"
            " in their environment"
        )
