"""DAG005: a promise is handed to a function that needs the value."""

import json
import math
import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd

from dagorama import dagorama
from tests.check.planted.nodes import Nodes


class SumOfPromises(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return sum(self.measure(i) for i in range(number))  #: DAG005


class SumOfPromise(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return sum(self.thing(number))  #: DAG005


class MaxOfPromises(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        sizes = [self.measure(i) for i in range(number)]
        return max(sizes)  #: DAG005


class MinOfTwo(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return min(self.measure(number), 5)  #: DAG005


class SortedPromises(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> list[int]:
        return sorted([self.measure(2), self.measure(1)])  #: DAG005


class AnyPromise(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> bool:
        return any(self.measure(i) for i in range(number))  #: DAG005


class IntOfPromise(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        return int(self.thing(number))  #: DAG005


class RangeOfPromise(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> list[int]:
        return [self.measure(i) for i in range(self.measure(number))]  #: DAG005


class EnumerateOfPromise(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> list[str]:
        return [name for i, name in enumerate(self.names(number))]  #: DAG005


class Printed(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        size = self.measure(number)
        print("size", size)  #: DAG005
        return size


class Joined(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        return ", ".join(self.names(number))  #: DAG005


class JoinOfPromises(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        return ", ".join([self.thing(i) for i in range(number)])  #: DAG005


class SquareRoot(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> float:
        return math.sqrt(self.measure(number))  #: DAG005


class Dumped(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        return json.dumps(self.record(number))  #: DAG005


class DumpedInside(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        return json.dumps({"sizes": [self.measure(i) for i in range(number)]})  #: DAG005


class Mean(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> float:
        return statistics.mean([self.measure(1), self.measure(2)])  #: DAG005


class Slept(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        time.sleep(self.measure(number))  #: DAG005
        return number


class PathOfPromise(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        return Path(self.thing(number)).name  #: DAG005


class Opened(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> str:
        with open(self.thing(number)) as file:  #: DAG005
            return file.read()


class ArrayMean(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> float:
        return np.mean([self.measure(1), self.measure(2)])  #: DAG005


class Frame(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> int:
        frame = pd.DataFrame(self.record(number))  #: DAG005
        return len(frame)


class Extended(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> list[str]:
        names = ["first"]
        names.extend(self.names(number))  #: DAG005
        return names


class ZippedPromise(Nodes):
    @dagorama().syncfn
    def entrypoint(self, number: int) -> dict[int, str]:
        return dict(zip(range(number), self.names(number)))  #: DAG005
