"""A broker that serves other machines: certificates, tokens and keys, a worker, a run, and what a stranger gets.

Everything is here in one program and reached over loopback; docs/how-to/secure.md does the same by hand, step by step.

Run: python samples/secure.py
It needs `pip install trustme`, which makes the certificates; in earnest they come from your own authority.
"""

import os
import tempfile
from pathlib import Path
from secrets import token_urlsafe

import grpc
import trustme

from dagorama.api import broker_pb2
from dagorama.api.broker_pb2_grpc import BrokerStub
from dagorama.cli.credentials import new_token, record_of
from dagorama.decorators import dagorama
from dagorama.definition import DAGDefinition, resolve
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker

NAME = "broker.example"
TOKENS = {role: new_token() for role in ("client", "worker", "reader")}


class Secret(DAGDefinition):
    @dagorama().syncfn
    def entrypoint(self, name: str) -> str:
        return self.greet(name)

    @dagorama().syncfn
    def greet(self, name: str) -> str:
        return f"This is for you alone, {name}."


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        os.environ |= what_clients_are_told(folder)
        with launch_broker(port=0, host="0.0.0.0", environment=what_the_broker_is_told(folder)) as broker:
            os.environ["DAGORAMA_AUTH_TOKEN"] = TOKENS["worker"]
            with launch_workers(1) as workers:
                print("a worker runs:", workers[0].is_alive())
                os.environ["DAGORAMA_AUTH_TOKEN"] = TOKENS["client"]
                instance, promise = Secret()("Ada")
                print(resolve(instance, promise, timeout=30))
            meet_strangers(folder, broker.address)


# --- who is told what -----------------------------------------------------------------------------------


def make_files(folder: Path) -> None:
    """Make an authority, certificates for the broker and for its callers, and the broker's file of tokens."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in (NAME, "client.example"):
        made = authority.issue_cert(name)
        made.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        (folder / f"{name}.key").touch(0o600)
        made.private_key_pem.write_to_path(folder / f"{name}.key")
    (folder / "tokens.toml").write_text("\n".join(
        [
            record_of(TOKENS["client"], "client"),
            record_of(TOKENS["worker"], "worker", tolerations=[]),
            record_of(TOKENS["reader"], "reader"),
        ]
    ))  # fmt: skip


def what_the_broker_is_told(folder: Path) -> dict[str, str]:
    return {
        "DAGORAMA_TOKENS_FILE": str(folder / "tokens.toml"),
        "DAGORAMA_BROKER_TLS_CERT": str(folder / f"{NAME}.pem"),
        "DAGORAMA_BROKER_TLS_KEY": str(folder / f"{NAME}.key"),
        "DAGORAMA_BROKER_TLS_CLIENT_CA": str(folder / "ca.pem"),
    }


def what_clients_are_told(folder: Path) -> dict[str, str]:
    return {
        "DAGORAMA_TLS_CA": str(folder / "ca.pem"),
        "DAGORAMA_TLS_CERT": str(folder / "client.example.pem"),
        "DAGORAMA_TLS_KEY": str(folder / "client.example.key"),
        "DAGORAMA_TLS_NAME": NAME,
        "DAGORAMA_SIGNING_KEYS": token_urlsafe(32),
    }


# --- strangers --------------------------------------------------------------------------------------------


def meet_strangers(folder: Path, address: str) -> None:
    """By plain stubs: what those get who lack something."""
    authority, cert, key = (
        (folder / name).read_bytes() for name in ("ca.pem", "client.example.pem", "client.example.key")
    )
    options = [("grpc.ssl_target_name_override", NAME)]
    plain = grpc.insecure_channel(address)
    nameless = grpc.secure_channel(address, grpc.ssl_channel_credentials(authority), options)
    known = grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, key, cert), options)
    print("without TLS:", answer(plain))
    print("without a certificate:", answer(nameless))
    print("without a token:", answer(known))
    print("with another token:", answer(known, "dgt_guessed"))
    print("a reader submits:", answer(known, TOKENS["reader"]))


def answer(channel: grpc.Channel, token: str = "") -> str:
    header = (("authorization", f"Bearer {token}"),) if token else ()
    try:
        BrokerStub(channel).SubmitStream(iter([broker_pb2.SubmitRequest()]), metadata=header, timeout=10)
    except grpc.RpcError as error:
        return f"{error.code().name}, {error.details()}"
    return "OK"


if __name__ == "__main__":
    main()
