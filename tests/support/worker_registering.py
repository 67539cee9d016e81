"""For `worker --import`: a module that registers a definition."""

from dagorama.serializer import register_definition
from tests.support.worker_nodes import Counting

register_definition(Counting(100))
