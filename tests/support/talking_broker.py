"""`Talk` for a broker that has Submit and Wait: each ask becomes a call of those, in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Thread
from typing import Any

import grpc

from dagorama.api import broker_pb2 as pb


class Aborted(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.refusal = pb.Refusal(status=code.value[0], message=details)


class AskContext:
    """The context that a call gets."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self.is_wanted = True

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code, details)

    def is_active(self) -> bool:
        return self.is_wanted and bool(self._context.is_active())


class Talking:
    """A broker with Submit and Wait that also serves Exchange, and counts its streams."""

    submit: Any
    Wait: Any
    talks = 0  #: streams that were opened
    talks_ended: SimpleQueue[str]  #: by whom
    asked: SimpleQueue[str]  #: what was asked

    def Exchange(self, asks: Iterator[pb.Requests], context: grpc.ServicerContext) -> Iterator[pb.Responses]:
        self.talks += 1
        answers: SimpleQueue[pb.Response | None] = SimpleQueue()
        Thread(target=self._listen, args=(asks, context, answers), daemon=True).start()
        context.add_callback(lambda: answers.put(None))
        while (answer := answers.get()) is not None:
            yield pb.Responses(response=[answer])

    def _listen(self, asks: Iterator[pb.Requests], context: grpc.ServicerContext, answers: Any) -> None:
        contexts: dict[int, AskContext] = {}
        try:
            for message in asks:
                for ask in message.request:
                    self.asked.put(ask.WhichOneof("what") or "")
                    if ask.cancel:
                        contexts[ask.number].is_wanted = False
                        continue
                    contexts[ask.number] = AskContext(context)
                    Thread(target=self._answer, args=(ask, contexts[ask.number], answers), daemon=True).start()
            self.talks_ended.put("the client")
        except grpc.RpcError:
            self.talks_ended.put("a broken connection")
        answers.put(None)

    def _answer(self, ask: pb.Request, context: AskContext, answers: Any) -> None:
        last = pb.Response(number=ask.number, done=True)
        try:
            if ask.HasField("submit"):
                self.submit(ask.submit, context)
            else:
                for reply in self.Wait(ask.wait, context):
                    answers.put(pb.Response(number=ask.number, wait=reply))
        except Aborted as aborted:
            last.refusal.CopyFrom(aborted.refusal)
        answers.put(last)
