"""Work that starts every night, one instance at a time, with a cache, and that sends a mail when it has failed.

Run: python samples/nightly.py

A schedule starts the instances: every two seconds here, and at night with "0 2 * * *". `overlap="skip"` starts none
while the last one runs. The prices are looked up once for all nights, until their values in the cache are a week old.

When an instance has ended failed, the broker calls the method that is decorated with
`@on_failure`, as a node with retries of its own, so that neither a crash nor a mail server that is away loses the mail.

The mail goes to the SMTP server at NIGHTLY_SMTP_HOST and NIGHTLY_SMTP_PORT, until Ctrl-C. Without them a small one of
this program prints it, and the program ends after the first mail.
"""

import os
import smtplib
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.message import EmailMessage

from dagorama import (
    Cache,
    DAGDefinition,
    Failure,
    StaticRetry,
    dagorama,
    on_failure,
    schedule,
    scheduled_for,
    unschedule,
)
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker

HOST, PORT = "NIGHTLY_SMTP_HOST", "NIGHTLY_SMTP_PORT"
STOCK = {"amsterdam": "120", "berlin": "310", "copenhagen": "many"}
PRICES = {"amsterdam": 12, "berlin": 9, "copenhagen": 15}


class Nightly(DAGDefinition):
    @dagorama
    def entrypoint(self) -> int:
        return self.total([self.worth(self.count(city), self.price(city)) for city in STOCK])

    @dagorama(max_concurrency=1)
    def count(self, city: str) -> int:
        """Count the stock of a city, of one city at a time."""
        return int(STOCK[city])

    @dagorama(cache=Cache(ttl=7 * 86_400))
    def price(self, city: str) -> int:
        print(f"Looking up the price in {city}", flush=True)
        return PRICES[city]

    @dagorama
    def worth(self, count: int, price: int) -> int:
        return count * price

    @dagorama
    def total(self, worths: list[int]) -> int:
        return sum(worths)

    @on_failure(retry=StaticRetry(5, interval=1), timeout=30)
    def tell(self, failure: Failure) -> None:
        mail = EmailMessage()
        mail["From"], mail["To"] = "nightly@example.com", "operators@example.com"
        mail["Subject"] = f"The nightly count of {scheduled_for():%H:%M:%S} has failed"
        mail["Message-ID"] = f"<{failure.instance_id}@example.com>"  # the same one if it is sent twice
        mail.set_content(f"{failure.function}\n{failure.message}\n\n{failure.traceback}")
        with smtplib.SMTP(os.environ[HOST], int(os.environ[PORT]), timeout=10) as server:
            server.send_message(mail)


class MailHandler(socketserver.StreamRequestHandler):
    """Takes one mail and prints its subject and its second line."""

    arrived = threading.Event()  # set after the first mail

    def handle(self) -> None:
        with suppress(ConnectionError):  # the program ends, and a worker with it that sends another mail
            self.converse()

    def converse(self) -> None:
        self.say("220 ready")
        while command := self.rfile.readline().strip().upper():
            if command == b"DATA":
                self.say("354 go on")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                self.print_mail([line.decode().strip() for line in lines])
                self.arrived.set()
            self.say("221 bye" if command == b"QUIT" else "250 ok")

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def print_mail(self, lines: list[str]) -> None:
        subject = next(line for line in lines if line.startswith("Subject: "))
        print(f"Mail: {subject.removeprefix('Subject: ')}: {lines[lines.index('') + 2]}", flush=True)


@contextmanager
def mail_server() -> Iterator[None]:
    """Serve mails within the block, unless the environment names a server."""
    if HOST in os.environ:
        yield
        return
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailHandler) as server:
        os.environ[HOST], os.environ[PORT] = "127.0.0.1", str(server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def main() -> None:
    with mail_server(), launch_broker(port=0), launch_workers(2):
        schedule(Nightly(), every=timedelta(seconds=2), id="nightly", overlap="skip")()
        with suppress(KeyboardInterrupt):
            MailHandler.arrived.wait()
        unschedule("nightly")


if __name__ == "__main__":
    main()
