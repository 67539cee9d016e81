"""DAG009: arguments that stay in their process."""

import socket
import sqlite3
import threading

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


class GeneratorArgument(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.total(i for i in range(number))  #: DAG009


class LockArgument(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.thing(threading.Lock())  #: DAG009


class ConnectionArgument(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        database = sqlite3.connect(":memory:")
        return self.thing(database)  #: DAG009


class SocketArgument(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        with socket.socket() as connection:
            return self.thing(connection)  #: DAG009


class LockInList(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return self.thing([number, threading.RLock()])  #: DAG009


class OpenFileArgument(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        with open(__file__, "rb") as file:
            return self.thing(file)  #: DAG009
