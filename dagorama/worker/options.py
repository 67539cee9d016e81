"""What a worker is told when it starts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    include_queues: tuple[str, ...] = ()  #: none: all
    exclude_queues: tuple[str, ...] = ()
    tolerations: tuple[str, ...] = ()
    concurrency: int = 1  #: child processes
    imports: tuple[str, ...] = ()  #: modules that every child imports first
    only_imported: bool = False  #: run nothing but definitions of these modules
    exit_on_completion: bool = False  #: leave when the graph is drained
    definitions: bytes = b""  #: a pickled Shipment of the launching program's, for the children
    grace: float | None = None  #: seconds that running nodes get when it is told to leave; None: as Settings say
