"""For `worker --import`: registers two definitions."""

import threading

from dagorama.serializer import register_definition
from tests.support.troubles import Adding, Locking

register_definition(Adding(100))
register_definition(Locking(threading.Lock()))
