"""The list of instances, with a search that lives in the address."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from dagorama.api import broker_pb2 as pb
from dagorama.errors import BrokerError, RequestRejected
from dagorama_dashboard.web.look import Look
from dagorama_dashboard.web.rendering import Content

PAGE = 50
#: Words that may stand before a colon in the search.
KEYS = ("label", "id", "definition", "function", "error")
STATES = {"": "all", "unfinished": "unfinished", "failed": "failed"}


class Search(NamedTuple):
    """A search as the broker takes it, and the beginning of an ID that it may contain."""

    request: pb.ListInstancesRequest
    digits: str  #: the first digits of an ID; empty: none were typed


def search_of(text: str, state: str = "") -> Search:
    """Return what a search like `label:tenant=7 function:Fan.work refused` means. Raises RequestRejected."""
    if state not in STATES:
        raise RequestRejected(f"state={state!r} is none of {', '.join(filter(None, STATES))}")
    asked = pb.ListInstancesRequest(unfinished=state == "unfinished", failed=state == "failed")
    digits = ""
    for word in _words(text):
        key, colon, value = word.partition(":")
        if not colon or key not in KEYS:
            digits_of_word = word.replace("-", "").lower()
            if len(digits_of_word) >= 4 and not digits_of_word.strip("0123456789abcdef"):
                digits = digits_of_word
                continue
            asked.definition = word
        elif key == "label":
            label, equals, of = value.partition("=")
            if not equals or not label:
                raise RequestRejected(f"write a label with its value, such as label:tenant=7, not {word!r}")
            asked.labels[label] = of
        else:
            setattr(asked, "name" if key == "id" else key, value)
    return Search(asked, digits)


def _words(text: str) -> list[str]:
    """Return the words of a search; quotes keep blanks together, and a pair of them within quotes is one."""
    words, word, quote, before = [], "", False, ""
    for character in text:
        if character == '"':
            quote = not quote
            word += '"' if quote and before == '"' else ""
        elif character.isspace() and not quote:
            words.append(word)
            word = ""
        else:
            word += character
        before = character
    return [each for each in (*words, word) if each]


async def instances(look: Look) -> Content:
    """Return the list of instances."""
    text, state = look.query("q"), look.query("state")
    problem, found, reply = "", b"", pb.ListInstancesReply()
    try:
        search = search_of(text, state)
        if search.digits:
            found = await _instance_of(look, search.digits)
            reply.instances.append(await look.ask("GetInstance", pb.GetInstanceRequest(instance=found)))
        else:
            search.request.limit, search.request.before = PAGE, look.number("before")
            reply = await look.ask("ListInstances", search.request)
    except RequestRejected as error:
        problem = f"{error}"
    except BrokerError as error:
        if not text:
            raise
        problem = f"{error}"
    return Content(
        "instances.html",
        "Instances",
        {
            "text": text, "state": state, "states": STATES, "problem": problem, "infos": list(reply.instances),
            "total": reply.total, "more": reply.more, "is_first": not look.query("before"),
        },
        section="instances",
    )  # fmt: skip


async def _instance_of(look: Look, digits: str) -> bytes:
    if len(digits) == 32:
        return UUID(hex=digits).bytes
    reply = await look.ask("FindIds", pb.FindIdsRequest(instance=digits))
    return bytes(reply.instance)
