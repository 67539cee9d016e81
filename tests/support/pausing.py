"""A node that waits together with a program that it has started."""

from __future__ import annotations

import subprocess
import sys

from dagorama import DAGDefinition, dagorama

#: Exits with 0 when it has read a line. A signal would end it with another code.
PROGRAM = "import sys; print('started', flush=True); sys.exit(not sys.stdin.readline())"


class Pausing(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, fifo: str) -> tuple[str, int]:
        command = [sys.executable, "-c", PROGRAM]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdout.readline()
            with open(fifo) as file:
                text = file.read()
            program.stdin.write("go on\n")
            program.stdin.flush()
            return text, program.wait()
