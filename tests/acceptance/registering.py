"""For `worker --import`: registers a definition."""

from dagorama.serializer import register_definition
from tests.acceptance.troubles import Adding

register_definition(Adding(100))
