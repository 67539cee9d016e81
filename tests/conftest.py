"""One signing key for all that these tests start, so that none looks for the user's own."""

import os

from dagorama.keys import new_key

os.environ.pop("DAGORAMA_SIGNING_KEYS_FILE", None)
os.environ["DAGORAMA_SIGNING_KEYS"] = new_key()
