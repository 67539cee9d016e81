"""The version of the installed package, asked once."""

from importlib.metadata import version

VERSION = version("dagorama")
