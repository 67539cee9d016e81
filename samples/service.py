"""A web service: it accepts a job with 202 and an ID, says how far it is, and streams what happens as events.

Run: python samples/service.py
or serve it: `dagorama dev samples/service.py`, and in another terminal `uvicorn service:app --app-dir samples`

It needs `pip install starlette uvicorn`. The client chooses the ID, so a request that it repeats starts nothing twice.
The service keeps nothing itself: it may be restarted, or run in several copies, while the jobs go on.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.client import HTTPConnection, HTTPResponse
from threading import Thread
from time import sleep

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dagorama import (
    BrokerUnavailable,
    DAGDefinition,
    InstanceExists,
    NodeEvent,
    NotFound,
    State,
    dagorama,
    events,
    resolve,
    start,
    state,
)
from dagorama.models.events import Event
from dagorama.runner import launch_workers
from dagorama_broker.launch import launch_broker


class Squares(DAGDefinition):
    @dagorama
    def entrypoint(self, count: int) -> int:
        return self.total([self.square(number) for number in range(count)])

    @dagorama
    def square(self, number: int) -> int:
        sleep(0.05)
        return number * number

    @dagorama
    def total(self, squares: list[int]) -> int:
        return sum(squares)


# --- the service: plain functions run in Starlette's threads, so they may wait for the broker -----------------


def submit(request: Request) -> Response:
    """Start the job, or find it if the same request came before."""
    count = request.query_params.get("count", "10")
    if not count.isdecimal():
        return problem(400, f"count must be a number, and is {count!r}")
    try:
        start(Squares(), id=request.path_params["id"])(int(count))
    except InstanceExists as error:
        return problem(409, str(error))
    location = str(request.url_for("status", **request.path_params))
    return JSONResponse({"status": location}, 202, {"Location": location})


def status(request: Request) -> Response:
    """Say how far the job is, and its result if there is one."""
    try:
        instance, promise = Squares.attach(id=request.path_params["id"])
    except NotFound as error:
        return problem(404, str(error))
    found = state(instance, promise)
    result = resolve(instance, promise) if found is State.COMPLETED else None
    return JSONResponse({"state": str(found), "result": result})


async def stream(request: Request) -> Response:
    """Stream what happens from now on as server-sent events; `new EventSource(url)` reads them in a browser."""
    try:
        instance, _ = Squares.attach(id=request.path_params["id"])
    except NotFound as error:
        return problem(404, str(error))

    async def messages() -> AsyncIterator[str]:
        async for event in events(instance):
            yield f"event: {name_of(event)}\ndata: {json.dumps(asdict(event), default=str)}\n\n"

    return StreamingResponse(messages(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def problem(status: int, error: str) -> Response:
    return JSONResponse({"error": error}, status)


def no_broker(request: Request, error: Exception) -> Response:
    return problem(503, str(error))


def name_of(event: Event) -> str:
    return str(event.kind) if isinstance(event, NodeEvent) else type(event).__name__.lower()


app = Starlette(
    routes=[
        Route("/jobs/{id}", submit, methods=["PUT"]),
        Route("/jobs/{id}", status, name="status"),
        Route("/jobs/{id}/events", stream),
    ],
    exception_handlers={BrokerUnavailable: no_broker},
)


# --- the program: a client of the service -----------------------------------------------------------------


@contextmanager
def serving() -> Iterator[int]:
    """Serve the app in a thread, and yield the port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def ask(port: int, method: str, path: str) -> HTTPResponse:
    client = HTTPConnection("127.0.0.1", port, timeout=60)
    client.request(method, path)
    return client.getresponse()


def main() -> None:
    with launch_broker(port=0), launch_workers(2), serving() as port:
        for _ in range(2):  # the second request changes nothing
            accepted = ask(port, "PUT", "/jobs/order-42?count=20")
            print("PUT", accepted.status, json.load(accepted)["status"].removeprefix(f"http://127.0.0.1:{port}"))
        print("other arguments:", ask(port, "PUT", "/jobs/order-42?count=21").status)
        print("no number:", ask(port, "PUT", "/jobs/order-44?count=many").status)
        print("another ID:", ask(port, "GET", "/jobs/order-43").status)

        for line in ask(port, "GET", "/jobs/order-42/events"):
            if line.startswith(b"event: instanceended"):
                print("stream: the instance has ended")
        job = json.load(ask(port, "GET", "/jobs/order-42"))
        print("GET", job["state"], job["result"])

    assert job == {"state": "COMPLETED", "result": sum(number * number for number in range(20))}


if __name__ == "__main__":
    main()
