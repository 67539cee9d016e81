"""A class between two others, in a file that names the library only here: dagorama."""

from tests.check.planted.nodes import Nodes
from tests.check.planted.silent_of_it import Unnamed


class Middle(Unnamed):
    pass


__all__ = ["Middle", "Nodes"]
