"""`python -m dagorama` is the `dagorama` command."""

from dagorama.cli.main import main

if __name__ == "__main__":
    main(prog_name="dagorama")
