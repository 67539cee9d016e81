"""The logs of a node: as a part of its page, live while it runs, and as a file."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

from starlette.responses import Response, StreamingResponse

from dagorama.api import broker_pb2 as pb
from dagorama.client.display.tables import harmless
from dagorama.client.logs import records_of
from dagorama.errors import BrokerError
from dagorama.models.log_record import LogRecord
from dagorama_dashboard.pages.node import place_of
from dagorama_dashboard.shown.formats import iso
from dagorama_dashboard.web.errors import problem_of
from dagorama_dashboard.web.look import Look
from dagorama_dashboard.web.rendering import render, sent

#: Sequences by which programs color their output.
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
#: Parts that the page shows, the latest ones; the file has all of them.
MOST_PARTS = 200


async def download(look: Look) -> Response:
    """Return all logs of a node as text."""
    instance, node, number = await place_of(look)
    name = f"{instance.hex()[:8]}-{number}.log"
    pieces = look.viewer.follow("GetLogs", pb.GetLogsRequest(instance=instance, node=node))
    first = await anext(pieces, pb.LogPiece())  # a refusal is a page, not a file
    return StreamingResponse(
        _lines(first, pieces), media_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )  # fmt: skip


async def _lines(first: pb.LogPiece, pieces: AsyncIterator[pb.LogPiece]) -> AsyncIterator[str]:
    try:
        for line in _lines_of(first):
            yield line
        async for piece in pieces:
            for line in _lines_of(piece):
                yield line
    except BrokerError as error:
        yield f"the rest could not be read: {error}\n"


def _lines_of(piece: pb.LogPiece) -> Iterator[str]:
    for record in records_of(piece):
        yield f"{iso(record.time)} attempt {record.attempt} {record.stream} {line_text(record)}\n"


def line_text(record: LogRecord) -> str:
    """Return the text of a record without colors, and with other control characters as escapes."""
    return harmless(_COLORS.sub("", record.text))


async def follow(look: Look) -> Response:
    """Return the logs of a node as a stream of parts of its page."""
    instance, node, _ = await place_of(look)
    return StreamingResponse(_parts(look, instance, node), media_type="text/event-stream")


async def _parts(look: Look, instance: bytes, node: bytes) -> AsyncIterator[str]:
    seen = look.request.headers.get("last-event-id", "") or look.query("after")
    after = int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 19 else 0
    request = pb.GetLogsRequest(instance=instance, node=node, follow=look.pace != "paused", after=after)
    count = 0
    try:
        async with aclosing(look.viewer.follow("GetLogs", request)) as pieces:
            async for piece in pieces:
                count += 1
                if count > MOST_PARTS:
                    yield sent(render("logs.html", records=[], note="The rest is in the download."))
                    break
                records = [(record, line_text(record)) for record in records_of(piece)]
                yield sent(render("logs.html", records=records, note=""), id=piece.id)
        if not count and not after:
            yield sent(render("logs.html", records=[], note="Nothing was printed or logged, or it was removed."))
    except BrokerError as error:
        yield sent(render("logs.html", records=[], note=problem_of(error).text))
    yield sent("", "over")
