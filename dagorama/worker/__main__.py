"""`python -m dagorama.worker` is the `worker` command. With `--launched FD` it is the worker of a launching program."""

import os
import sys
from importlib import import_module

LAUNCHED = "--launched"

if not __package__:  # run by its path, so that it also works if the package is not on the import path
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main() -> int:
    """Run the worker."""
    if sys.argv[1:2] == [LAUNCHED]:
        from dagorama.worker.main import run_launched

        return run_launched(int(sys.argv[2]))
    # Imported by name, because the command is in a layer above the worker.
    import_module("dagorama.cli").worker(prog_name="worker")
    return 0


if __name__ == "__main__":
    sys.exit(main())
