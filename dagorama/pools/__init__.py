"""Pools of workers on Slurm, Ray, Dask, or an engine of your own: as many as the broker needs, and none without work.

A pool asks the broker how many slots its workers need, and starts what is missing. The broker owns the work, so a pool
may be killed and started again at any time. Importing this package loads none of the engines' libraries.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagorama.pools.engine import Engine as Engine
    from dagorama.pools.engine import EngineRefused as EngineRefused
    from dagorama.pools.engine import Phase as Phase
    from dagorama.pools.on_dask import DaskPool as DaskPool
    from dagorama.pools.on_ray import RayPool as RayPool
    from dagorama.pools.on_slurm import SlurmPool as SlurmPool
    from dagorama.pools.options import PoolOptions as PoolOptions
    from dagorama.pools.pool import Pool as Pool
    from dagorama.pools.worker_spec import WorkerSpec as WorkerSpec

#: The module of each name: the imports above, as a table.
_HOMES = {
    "DaskPool": "dagorama.pools.on_dask",
    "Engine": "dagorama.pools.engine",
    "EngineRefused": "dagorama.pools.engine",
    "Phase": "dagorama.pools.engine",
    "Pool": "dagorama.pools.pool",
    "PoolOptions": "dagorama.pools.options",
    "RayPool": "dagorama.pools.on_ray",
    "SlurmPool": "dagorama.pools.on_slurm",
    "WorkerSpec": "dagorama.pools.worker_spec",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]  # it reads the imports above


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(home), name)
    return found
