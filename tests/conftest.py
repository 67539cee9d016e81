"""What holds for all that these tests start: one signing key, signals, which start first, and a short collection.

None looks for the user's own key; and a shell that starts the tests in the background, where SIGINT is ignored, or
under nohup, starts the same tests as one in the foreground.
"""

import gc
import os
import signal

import pytest

from dagorama.values.keys import new_key

os.environ.pop("DAGORAMA_SIGNING_KEYS_FILE", None)
os.environ["DAGORAMA_SIGNING_KEYS"] = new_key()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
    signal.signal(signal.SIGHUP, lambda *_: None)  # a program inherits that a signal is ignored, and no handler


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with tests that wait for long, so that at the end no process runs them while the others are idle."""
    items.sort(key=lambda item: item.get_closest_marker("early") is None)


# Nothing that the collection makes is garbage before the end. Looking for some takes a quarter of its time, in each
# process of pytest, and in each later search for garbage most of it.
gc.disable()


def pytest_collection_finish() -> None:
    """Search for garbage from now on, but never among the tests."""
    gc.freeze()
    gc.enable()
