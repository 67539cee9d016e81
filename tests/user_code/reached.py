"""The source of modules whose classes reach code in every way but by naming a function."""

#: What a class may reach otherwise than by a function of its module; each number occurs once.
REACHED = """
import functools
from dataclasses import dataclass, field

from dagorama import DAGDefinition, dagorama


def scaled(factor, x):
    return factor * x


class Setting:
    def __init__(self, value):
        self.value = value

    def get(self):
        return self.value


twice = functools.partial(scaled, 10)
read = Setting(11).get
for LOOPED in (12,):
    pass
print(end=str(WALRUS := 13)[:0])


class Meta(type):
    def tag(cls):
        return 14


class Tagged(metaclass=Meta):
    pass


@dataclass
class Row:
    sizes: list = field(default_factory=lambda: [15])


@functools.singledispatch
def chosen(x):
    return 16


@chosen.register
def of_int(x: int):
    return 17


class Mixin:
    weight = 18

    def helped(self):
        return 19


class Task(Mixin, DAGDefinition):
    part = staticmethod(functools.partial(scaled, 20))
    bound = staticmethod(Setting(21).get)
    doubled = property(functools.partial(scaled, 22))
    for looped in (23,):
        pass

    @functools.singledispatchmethod
    def sorted_out(self, x):
        return 24

    @sorted_out.register
    def of_text(self, x: str):
        return 25

    @dagorama().syncfn
    def entrypoint(self):
        return twice(1), read(), LOOPED, WALRUS, Tagged.tag(), Row(), chosen(1), self.helped()
"""

MADE = """
from dataclasses import dataclass, field

from dagorama import DAGDefinition, dagorama


@dataclass
class Task(DAGDefinition):
    sizes: list = field(default_factory=lambda: [10])

    @dagorama().syncfn
    def entrypoint(self):
        return self.sizes
"""

#: A class that a function makes: values count in it, and the classes of these values travel with it.
LOCAL = """
from dagorama import DAGDefinition, StaticRetry, dagorama


class Setting:
    def __init__(self, value):
        self.value = [value]


def made(number):
    captured = Setting(number)

    class Inner:
        setting = captured

    class Task(DAGDefinition):
        attribute = Setting(number)
        inner = Inner()

        @dagorama(retry=StaticRetry(3, 1, retry_on=(OSError,)))
        def entrypoint(self, given=Setting(number)):
            return captured

    return Task


Task = made(1)
"""
