"""The version of the installed package, asked when somebody wants to know: finding it out takes a while."""

from functools import cache


@cache
def version() -> str:
    from importlib.metadata import version as version_of

    return version_of("dagorama")
