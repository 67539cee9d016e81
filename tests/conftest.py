"""What holds for all that these tests start: one signing key, and Ctrl-C.

None looks for the user's own key; and a shell that starts the tests in the background, where SIGINT is ignored, starts
the same tests as one in the foreground.
"""

import os
import signal

from dagorama.values.keys import new_key

os.environ.pop("DAGORAMA_SIGNING_KEYS_FILE", None)
os.environ["DAGORAMA_SIGNING_KEYS"] = new_key()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
