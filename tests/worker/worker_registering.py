"""For `worker --import`: a module that registers a definition."""

from worker_nodes import Counting

from dagorama.serializer import register_definition

register_definition(Counting(100))
