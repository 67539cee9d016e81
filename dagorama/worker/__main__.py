"""`python -m dagorama.worker`: the `worker` command; or, told a socket, the worker of the process at its other end."""

import os
import sys
from importlib import import_module

LAUNCHED = "--launched"

if not __package__:  # run by its path, which also works where the package is on nobody's path
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main() -> int:
    if sys.argv[1:2] == [LAUNCHED]:
        from dagorama.worker.main import run_launched

        return run_launched(int(sys.argv[2]))
    # By its name: the command is above the worker, which it starts.
    import_module("dagorama.cli").worker(prog_name="worker")
    return 0


if __name__ == "__main__":
    sys.exit(main())
