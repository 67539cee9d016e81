"""`python -m dagorama_broker` is `dagorama-broker`."""

from dagorama_broker.cli import main

main(prog_name="dagorama-broker")
