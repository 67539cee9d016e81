"""Ask a listener, as a probe or a scraper does."""

from __future__ import annotations

import asyncio
import re
from http.client import HTTPConnection
from typing import NamedTuple
from urllib.parse import urlsplit

SECONDS = 30.0  #: nothing that works takes so long


class Reply(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]


def fetch(url: str, method: str = "GET", **headers: str) -> Reply:
    """Return the answer to one request; `_` in the name of a header stands for a dash."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=SECONDS)
    try:
        connection.request(
            method, address.path, headers={name.replace("_", "-"): each for name, each in headers.items()}
        )
        reply = connection.getresponse()
        return Reply(reply.status, reply.read().decode(), dict(reply.getheaders()))
    finally:
        connection.close()


async def afetch(url: str) -> Reply:
    """Return the answer to one request, without blocking the event loop."""
    return await asyncio.to_thread(fetch, url)


def url_in(line: str) -> str:
    """Return the address in the line with which a process tells where it listens."""
    (found,) = re.findall(r"http://[\d.]+:\d+", line)
    return str(found)
