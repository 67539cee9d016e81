"""Pools on Ray: an actor for each dagorama worker, so that Ray's scheduler and autoscaler see what it occupies.

Actors are detached and in a namespace of the pool: they outlive the process of the pool, and the next one finds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from secrets import token_hex
from socket import create_connection
from time import time
from typing import Any, Unpack

from dagorama.pools.engine import EngineRefused, Phase, text_of
from dagorama.pools.options import PoolKeywords, PoolOptions
from dagorama.pools.pool import Pool
from dagorama.pools.worker_spec import WorkerSpec

#: Seconds for actors that run to answer.
ANSWER_S = 1.0
#: Seconds for a connection to the cluster. Ray itself tries for minutes.
CONNECT_S = 5.0


class RayEngine:
    """Runs workers as actors of a Ray cluster; the IDs of its members are the names of the actors.

    `actor` are options of `ray.remote`, for example `num_cpus`, `num_gpus` and `resources`. Without CPUs an actor holds
    none while it runs, and Ray may take away its machine. `runtime_env` is Ray's; Ray refuses a local folder in it if
    this process is connected to the cluster already.
    """

    def __init__(
        self, pool: str, address: str | None = None, runtime_env: Mapping[str, Any] | None = None, **actor: Any
    ) -> None:  # fmt: skip
        """Connect to the cluster at `address`, unless this process is connected already.

        None starts Ray on this machine if there is no cluster. Raises EngineRefused if Ray is missing or no cluster
        answers.
        """
        self._namespace = f"dagorama-{pool}"
        self._actor = {"num_cpus": 1, **actor}
        self._handles: dict[str, tuple[Any, Any]] = {}  # of actors, and what their first answers will be
        self._is_ours = False
        with self._asking():
            import ray  # pyright: ignore[reportMissingImports]  # an extra

            if not ray.is_initialized():
                _check_reachable(address or "")
                ray.init(
                    address=address, namespace=self._namespace, runtime_env=dict(runtime_env or {}), log_to_driver=False
                )  # fmt: skip
                self._is_ours = True
            elif runtime_env is not None:
                self._actor["runtime_env"] = dict(runtime_env)
        self._ray = ray

    # --- Engine -----------------------------------------------------------------------------------------

    def start(self, n: int, worker: WorkerSpec) -> list[str]:
        from dagorama.pools.ray_actor import WorkerActor

        with self._asking():
            made = self._ray.remote(WorkerActor)
            names = [f"{int(time() * 1_000):x}-{number:03}-{token_hex(2)}" for number in range(n)]
            for name in names:
                actor = made.options(
                    name=name, namespace=self._namespace, lifetime="detached", max_concurrency=2, **self._actor
                ).remote(worker, name)
                self._handles[name] = actor, actor.ping.remote()
        return names

    def alive(self) -> Mapping[str, Phase]:
        with self._asking():
            named = self._ray.util.list_named_actors(all_namespaces=True)
            names = sorted(each["name"] for each in named if each["namespace"] == self._namespace)
            self._handles = {name: found for name in names if (found := self._handle(name)) is not None}
            answers = {answer: name for name, (_, answer) in self._handles.items()}
            if not answers:
                return {}
            ready, _ = self._ray.wait(list(answers), num_returns=len(answers), timeout=ANSWER_S)
            running = {answers[answer] for answer in ready}
            return {name: Phase.RUNNING if name in running else Phase.PENDING for name in self._handles}

    def drain(self, ids: Sequence[str]) -> None:
        with self._asking():
            phases = self.alive()
            for id in ids:
                if phases.get(id) is Phase.RUNNING:
                    self._handles[id][0].drain.remote()
                elif id in phases:
                    self._ray.kill(self._handles[id][0])

    # --- the end ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Disconnect, if the engine has connected."""
        if self._is_ours:
            self._ray.shutdown()

    # --- Ray --------------------------------------------------------------------------------------------

    def _handle(self, name: str) -> tuple[Any, Any] | None:
        """Return the handle of an actor and its first answer; None: it has ended meanwhile."""
        found = self._handles.get(name)
        if found is None:
            try:
                actor = self._ray.get_actor(name, namespace=self._namespace)
            except ValueError:
                return None
            found = actor, actor.ping.remote()
        return found

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn errors of Ray into ours."""
        try:
            yield
        except ImportError as error:
            raise EngineRefused(f"a pool on Ray needs a package: pip install 'dagorama[ray]' ({error})") from None
        except EngineRefused:
            raise
        except Exception as error:
            if not isinstance(error, OSError | RuntimeError | ValueError) and not type(error).__module__.startswith(
                "ray."
            ):
                raise
            raise EngineRefused(f"the Ray cluster does not answer: {text_of(error)}") from None


class RayPool(Pool):
    """A pool of actors on the Ray cluster at `address`, or on the one that this process is connected to.

    Use it in a `with` block. With `num_gpus` it runs nodes with the taint `GPU`, on the GPUs that Ray gives to each
    actor. `runtime_env` is Ray's, for example with a working folder. Raises EngineRefused if Ray is not installed or no
    cluster answers, and SettingsError.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        num_cpus: float = 1,
        num_gpus: float = 0,
        resources: Mapping[str, float] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        **options: Unpack[PoolKeywords],
    ) -> None:
        chosen = PoolOptions.of("ray", options).with_gpu(num_gpus > 0)
        worker = chosen.worker()
        held = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": dict(resources or {})}
        self._ray_engine = RayEngine(chosen.name, address, runtime_env, **held)
        super().__init__(self._ray_engine, chosen, worker)

    def _release(self) -> None:
        self._ray_engine.close()


def _check_reachable(address: str) -> None:
    """Raise OSError unless the host and port of an address can be connected to; other forms are left to Ray."""
    host, colon, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if colon and port.isdecimal():
        try:
            create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
        except OSError as error:
            raise OSError(f"no connection to {host}:{port} ({error.strerror or error})") from None
