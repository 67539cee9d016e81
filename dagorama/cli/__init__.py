"""The commands `dagorama` and `worker`. They print; the client asks."""

from dagorama.cli.worker_command import worker as worker  # the original's path
