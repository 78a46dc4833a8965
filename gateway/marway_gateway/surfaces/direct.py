"""A prediction without a task: begun when its request came, answered from the callback that has the pod's answer.

That is the way of nearly all small predictions. What needs anything else but the pod's answer is not begun; and what
turns out otherwise once it was sent (another answer than the model's, none for a while, a pod that was lost, a client
that left, a server that stops) goes on in a task from there, with the rules that hold for every prediction.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from marway_gateway.gateway import Gateway
from marway_gateway.http.client_watch import Watches
from marway_gateway.http.requests import send_whole
from marway_gateway.http.sync_request import Exchange
from marway_gateway.predict.attempt import Asking
from marway_gateway.predict.call import Answer, PredictCall
from marway_gateway.surfaces.answers import answer_in_time, whole_lines
from marway_gateway.transport.base import Reply

__all__ = ["DIRECT_S", "DirectPrediction"]

DIRECT_S: Final = 0.25
"""How long an answer may take before its request goes on in a task, where deadline and client are watched: longer than
small models take under load."""


class DirectPrediction:
    """One such prediction; its upstream connection's waiter.

    Args:
        gateway: The gateway.
        exchange: The request.
        call: The call; its body is in memory and its deadline further away than twice `DIRECT_S`.
        lasting: Has it go on in a task when it takes long.
        watches: The watches of predictions in tasks.
    """

    __slots__ = ("_asking", "_call", "_exchange", "_gateway", "_lasting", "_response", "_watches")

    def __init__(
        self, gateway: Gateway, exchange: Exchange, call: PredictCall, *, lasting: Watches, watches: Watches
    ) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._call = call
        self._lasting = lasting
        self._watches = watches
        self._asking: Asking
        self._response: asyncio.Future[Reply] | None = None

    def send(self, surface: str) -> bool:
        """Send it to a pod, if nothing on the way there needs waiting, or give a kept answer; return whether it was."""
        predictor = self._gateway.predictor
        resolved = predictor.known(self._call)
        if resolved is None:
            return False
        # With others behind it, each answer would begin the next from within, however many there are.
        if self._exchange.alone and self._exchange.writable:
            kept = predictor.kept(self._call, resolved)
            if kept is not None:
                self._gateway.telemetry.predicting(self._call.info, surface)
                self._pass_on(kept)
                return True
        asking = predictor.begin(self._call, resolved, self)
        if asking is None:
            return False
        self._asking = asking
        self._gateway.telemetry.predicting(self._call.info, surface)
        self._exchange.left = self.begin
        self._lasting.add(self, asyncio.get_running_loop())
        return True

    def begin(self) -> None:
        """Go on in a task."""
        if self._response is None:
            self._response = asyncio.get_running_loop().create_future()
            self._lasting.remove(self)
            self._exchange.go_on(self._resume)

    # -- told by the connection to the pod -----------------------------------------------------------------

    def done(self) -> bool:
        return self._response is not None and self._response.done()

    def set_exception(self, error: Exception) -> None:
        self.begin()
        assert self._response is not None
        self._response.set_exception(error)

    def set_result(self, response: Reply) -> None:
        if self._response is None and self._exchange.writable:
            try:
                answer = self._gateway.predictor.finish(self._asking, response)
            except Exception:
                answer = None  # in a task it fails as well, and is reported
            if answer is not None:
                self._pass_on(answer)
                return
        self.begin()
        assert self._response is not None
        self._response.set_result(response)

    def _pass_on(self, answer: Answer) -> None:
        self._lasting.remove(self)
        assert answer.data is not None
        info = self._call.info
        try:
            lines = whole_lines(answer, answer.data, info)
            send_whole(self._exchange, info, self._gateway.telemetry, answer.status, lines, answer.data)
        except Exception as exc:
            self._exchange.go_on(_raising(exc))

    # -- in a task -----------------------------------------------------------------------------------------

    async def _resume(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._response is not None
        answer = self._gateway.predictor.resume(self._asking, self._response)
        await answer_in_time(answer, self._call, self._watches, receive, send)


def _raising(error: Exception) -> ASGIApp:
    """Return an app that fails, for what is around it to report that."""

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return fail
