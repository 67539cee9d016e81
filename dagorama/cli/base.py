"""The parts that all `dagorama` commands share: the connection, IDs as arguments, the output and the error messages."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from re import fullmatch
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

import click

from dagorama.cli.exit_codes import ExitCode, exit_code
from dagorama.cli.output import DATA, NAMED, Answer, Output, output_options, print_out, say
from dagorama.cli.parameters import F
from dagorama.errors import BrokerError, DagoramaError, NotFound, RequestRejected
from dagorama.settings import HIGHEST_PORT, Settings
from dagorama_monitoring.documentation import with_address

if TYPE_CHECKING:
    from dagorama.client.connection import Connection

__all__ = [
    "INSTANCE", "LABELS", "NODES", "TARGET", "Answer", "NumbersCommand", "address_options", "broker_command",
    "broker_options", "connect", "fail", "fail_with", "id_digits", "label_option", "named_command", "node_name",
    "node_names", "node_reference", "print_answer", "report_errors", "target", "whole_ids",
]  # fmt: skip

#: hexadecimal digits of a complete ID, and the fewest that may stand for one
ID_DIGITS, MIN_ID_DIGITS = 32, 4
#: Begins an argument that names an instance by the ID that its user has given to it.
USER_ID = "id="
#: Nodes that one call may find.
_FOUND_TOGETHER = 100
_NEGATIVE = r"-[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?"


class NumbersCommand(click.Command):
    """A command that takes negative numbers as arguments, which click would take for options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave unknown options to the arguments if one of them is such a number."""
        ctx.ignore_unknown_options = any(fullmatch(_NEGATIVE, each) for each in args)
        return super().parse_args(ctx, args)


def broker_command(command: Callable[..., Answer]) -> Callable[..., None]:
    """Turn a function that takes a connection first into a command with the options --host, --port and -o."""
    return _asking(command, DATA)


def named_command(command: Callable[..., Answer]) -> Callable[..., None]:
    """Return what `broker_command` returns, with `-o name`, which prints the names of the answer."""
    return _asking(command, NAMED)


def _asking(command: Callable[..., Answer], outputs: Sequence[Output]) -> Callable[..., None]:
    @functools.wraps(command)
    def asked(host: str | None, port: int | None, output: Output, **arguments: Any) -> None:
        print_answer(lambda broker: command(broker, **arguments), host, port, output)

    return broker_options(outputs)(asked)


def print_answer(command: Callable[[Connection], Answer], host: str | None, port: int | None, output: Output) -> None:
    """Print the answer to a command; exit with a one-sentence error if there is none."""
    with report_errors():
        answer = command(connect(host, port))
    print_out(answer, output)
    if answer.code:
        sys.exit(answer.code)


def address_options(command: F) -> F:
    """Add the options --host and --port, which are passed as `host` and `port`."""
    command = click.option(
        "--port", type=click.IntRange(1, HIGHEST_PORT), help="Port of the broker [DAGORAMA_PORT, 50051]."
    )(command)
    return click.option(
        "--host",
        help="Address of the broker, or several, separated by commas [DAGORAMA_HOST, localhost].",
    )(command)


def broker_options(outputs: Sequence[Output] = DATA) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add --host, --port, -o and --json, which are passed as `host`, `port` and `output`."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        return address_options(output_options(outputs)(command))

    return add


@contextmanager
def report_errors() -> Iterator[None]:
    """Exit with a one-sentence error message and an exit code instead of a traceback."""
    try:
        yield
    except KeyboardInterrupt as error:
        sys.exit(exit_code(error))
    except (DagoramaError, TimeoutError) as error:
        fail_with(error, exit_code(error))
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        # Python passes bytes of the command line that are not UTF-8 on as such characters.
        fail(f"{error.object!r} is not valid UTF-8, so it cannot be sent to a broker", ExitCode.USAGE)


def fail_with(error: BaseException, code: int) -> NoReturn:
    """Print the text of an error, and where it is documented, and exit."""
    fail(with_address(error), code)


def fail(sentence: str, code: int) -> NoReturn:
    """Print an error message and exit."""
    say(f"dagorama: {sentence}", err=True)
    sys.exit(code)


def connect(host: str | None, port: int | None) -> Connection:
    """Return a connection to the broker at this address, or at the one of the settings."""
    from dagorama.client.connection import Connection

    return Connection(Settings.from_env(host, port))


# --- IDs as people type them ------------------------------------------------------------------------------


def id_digits(text: str) -> str:
    """Return the digits of a complete or abbreviated ID, in lower case and without dashes. Raises BadParameter.

    A user's ID, `id=order-42`, is returned as it is.
    """
    if text.startswith(USER_ID):
        return text
    digits = text.strip().lower().replace("-", "")
    if fullmatch(f"[0-9a-f]{{{MIN_ID_DIGITS},{ID_DIGITS}}}", digits):
        return digits
    if "/" in text:
        raise click.BadParameter(f"{text!r} names a node, and an instance is expected.")
    hint = f" For the node with this ordinal, write /{digits}." if fullmatch("[1-9][0-9]*", digits) else ""
    raise click.BadParameter(
        f"{text!r} is not an ID, nor the first {MIN_ID_DIGITS} or more hexadecimal digits of one.{hint}"
    )


def node_reference(text: str) -> str:
    """Return a node as `ID`, `/N`, `INSTANCE/N` or `INSTANCE/ID`, with digits as `id_digits` has them.

    Raises BadParameter.
    """
    instance, slash, node = text.strip().partition("/")
    if not slash:
        return id_digits(text)
    whose = id_digits(instance) if instance else ""
    if fullmatch("[1-9][0-9]{0,17}", node):
        return f"{whose}/{node}"
    digits = node.lower().replace("-", "")
    if not fullmatch(f"[0-9a-f]{{{ID_DIGITS}}}", digits):
        raise click.BadParameter(
            f"{text!r} is not a node: after the slash comes its ordinal, from 1, or its complete ID."
        )
    return f"{whose}/{digits}"


def target(text: str) -> str:
    """Return an instance as `id_digits` does, or a node with its instance as `node_reference` does."""
    if text.startswith(USER_ID):
        return text
    if text.startswith("/"):
        raise click.BadParameter(f"{text!r} needs the instance before the slash.")
    return node_reference(text)


def label_pair(text: str) -> tuple[str, str]:
    """Return a label and its value from `label=value`. Raises BadParameter."""
    label, equals, value = text.partition("=")
    if not label or not equals:
        raise click.BadParameter(f"{text!r} is not a label and its value, such as tenant=7.")
    return label, value


def _labels(context: click.Context, parameter: click.Parameter, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    return dict(pairs)


def label_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option --label, whose values are passed as the dict `labels`."""
    return click.option(
        "--label", "labels", multiple=True, type=label_pair, callback=_labels, metavar="LABEL=VALUE", help=text
    )


LABELS = label_option("Only instances with this label. May be repeated: with all of them.")
INSTANCE = click.argument("instance", type=id_digits)
NODES = click.argument("nodes", type=node_reference, nargs=-1, metavar="[NODE]...")
#: An instance, or one of its nodes as INSTANCE/N.
TARGET = click.argument("instance", type=target, metavar="INSTANCE[/N]")


def whole_ids(broker: Connection, instance: str, nodes: Sequence[str] = ()) -> tuple[bytes, list[bytes]]:
    """Return the complete IDs; the broker is called only if one of them is abbreviated. Raises BrokerError.

    `instance` may name a node too, which then is the first of the nodes.
    """
    if instance.startswith(USER_ID):
        instance = _with_user_id(broker, instance.removeprefix(USER_ID)).hex()
    digits, slash, _ = instance.partition("/")
    parsed = [_parsed(reference) for reference in ([instance, *nodes] if slash else nodes)]
    whole, ids = _found(broker, digits, [node for _, node in parsed])
    for whose, node in parsed:
        if not whole.hex().startswith(whose):
            raise RequestRejected(f"{whose}/{node.lstrip('/')} is not a node of instance {UUID(bytes=whole)}")
    return whole, ids


def _with_user_id(broker: Connection, name: str) -> bytes:
    """Return the only instance that has this ID. Raises NotFound or RequestRejected."""
    found = broker.list_instances(2, name=name).instances if name else []
    if not found:
        raise NotFound(f"no instance has the ID {name!r}")
    if len(found) > 1:
        named = ", ".join(f"{UUID(bytes=info.instance)} of {info.definition}" for info in found)
        raise RequestRejected(f"several definitions have an instance with the ID {name!r}: {named}")
    return found[0].instance


def _parsed(reference: str) -> tuple[str, str]:
    """Return the digits of the instance, if the reference has them, and the node as `Connection.find_ids` takes it."""
    whose, slash, node = reference.partition("/")
    if not slash:
        return "", whose
    return whose, node if len(node) == ID_DIGITS else f"/{node}"


def _found(broker: Connection, instance: str, nodes: Sequence[str]) -> tuple[bytes, list[bytes]]:
    if all(len(text) == ID_DIGITS for text in (instance, *nodes)):
        return bytes.fromhex(instance), [bytes.fromhex(text) for text in nodes]
    whole, ids = broker.find_ids(instance, nodes[:_FOUND_TOGETHER])
    for start in range(_FOUND_TOGETHER, len(nodes), _FOUND_TOGETHER):
        ids += broker.find_ids(whole.hex(), nodes[start : start + _FOUND_TOGETHER])[1]
    return whole, ids


# --- names of nodes for people ------------------------------------------------------------------------------

#: Digits of the instance in a name: a broker needs about 10,000 instances before two share them with a chance of 1 %.
PREFIX_DIGITS = 8
#: Nodes that one call may ask for.
_NAMED_TOGETHER = 1_000


def node_name(instance: bytes, ordinal: int, id: bytes) -> str:
    """Return the name of a node; its ID if the broker has not told its ordinal."""
    return f"{instance.hex()[:PREFIX_DIGITS]}/{ordinal}" if ordinal else str(UUID(bytes=id))


def node_names(broker: Connection, ids: Collection[bytes]) -> dict[bytes, str]:
    """Return the names of nodes by their IDs; the name of a node that the broker does not tell is its ID.

    Names only decorate an answer. A command that has changed something must not look failed because the broker is
    gone by then, is older, or does not let the role of the token read: a repetition would change it twice.
    """
    names = {id: str(UUID(bytes=id)) for id in ids if id}
    wanted = list(names)
    try:
        for start in range(0, len(wanted), _NAMED_TOGETHER):
            for found in broker.name_nodes(wanted[start : start + _NAMED_TOGETHER]):
                names[found.node] = node_name(found.instance, found.ordinal, found.node)
    except BrokerError:
        return names
    return names
