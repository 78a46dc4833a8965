"""Pods that follow the wire contract and fail on demand, and a gateway on free ports, all in this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import httpx
from aiohttp import web

from marway.errors import MarwayError, ModelError, Overloaded, RuntimeDown
from marway.process.stop_request import StopRequest
from marway.registry import Registry
from marway.settings import load_settings
from marway.wire.headers import OUTCOME, Outcome
from marway.wire.pods import WATCH_CONTENT_TYPE, LoadReport, ModelStatus, PodEvent, PodStatus
from marway.wire.problems import CONTENT_TYPE, problem_of
from marway_gateway.server import Addresses, serve
from marway_gateway.settings import GatewaySettings, PodAddress

Behaviour = Callable[["FakePod", web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")


@dataclass
class Seen:
    """One predict request as a pod got it."""

    path: str
    headers: dict[str, str]
    body: bytes = b""
    complete: bool = False


async def answer(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Give back what was sent, as a model would."""
    return web.Response(
        body=pod.requests[-1].body,
        headers={"content-type": request.headers.get("content-type", "x/none"), OUTCOME: Outcome.ANSWERED},
    )


def fail(error: MarwayError, outcome: str | None) -> Behaviour:
    """Refuse with a problem, as a sidecar does."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        problem, headers = problem_of(error)
        if outcome is not None:
            headers[OUTCOME] = outcome
        return web.Response(body=problem.body(), status=problem.status, content_type=CONTENT_TYPE, headers=headers)

    return behave


busy = fail(Overloaded("64 requests wait", retry_after_s=7), Outcome.NOT_ACCEPTED)
down = fail(RuntimeDown("the model server is gone"), Outcome.RUNTIME_DOWN)
broken_model = fail(ModelError("KeyError: 'text'", status=422), Outcome.MODEL_ERROR)


async def hang_up(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Close the connection with the request in hand."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def hang(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


@dataclass
class FakePod:
    """A sidecar on a free port.

    Attributes:
        behave: Answers predict requests, after their bodies were read.
        early: Answers them instead, before the body was asked for, where the request says `Expect: 100-continue`.
        requests: Those it got.
        read_body: Whether to read bodies before `behave` is called.
        silent: Whether to leave health checks without an answer.
        polls: Health checks it got.
        watches: Watches that were opened.
        cancelled: How many of the requests ended because their caller went away, wherever they were.
        loads: Paths of the loads that were asked for.
        may_load: Waited for before a load is done, or None.
        load_error: What a load ends in, or None.
        backend: Its kind of model server.
    """

    name: str
    behave: Behaviour = answer
    early: Behaviour | None = None
    ready: bool = True
    draining: bool = False
    models: tuple[ModelStatus, ...] = ()
    status_code: int = 200
    read_body: bool = True
    silent: bool = False
    requests: list[Seen] = field(default_factory=list)
    polls: int = 0
    watches: int = 0
    _listeners: list[asyncio.Queue[PodEvent | bytes | None]] = field(default_factory=list)
    cancelled: int = 0
    loads: list[str] = field(default_factory=list)
    may_load: asyncio.Event | None = None
    load_error: MarwayError | None = None
    backend: str = "torchserve"
    url: str = ""
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=1024**3)
        app.router.add_post("/predict/{name}/{version}", self._predict, expect_handler=self._expected)
        app.router.add_get("/status", self._status)
        app.router.add_get("/watch", self._watch)
        self.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"

    def add_routes(self, app: web.Application) -> None:
        """Add the routes that steer it; kinds of this pod have others."""
        app.router.add_post("/models/{name}/{version}/load", self._load)

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def address(self) -> PodAddress:
        return PodAddress(self.name, self.url)

    async def _expected(self, request: web.Request) -> web.StreamResponse | None:
        if self.early is not None:
            self.requests.append(Seen(request.path, dict(request.headers)))
            return await self.early(self, request)
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    async def _predict(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(request.path, {name.lower(): value for name, value in request.headers.items()})
        self.requests.append(seen)
        try:
            if self.read_body:
                seen.body = await request.read()
                seen.complete = True
            return await self.behave(self, request)
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled += 1
            raise

    async def _status(self, request: web.Request) -> web.Response:
        self.polls += 1
        while self.silent:
            await asyncio.sleep(0.01)
        return web.Response(
            text=self.status.model_dump_json(), status=self.status_code, content_type="application/json"
        )

    @property
    def status(self) -> PodStatus:
        """What it says of itself now."""
        facts = {"name": self.name, "boot_id": "1", "backend": self.backend}
        return PodStatus(**facts, ready=self.ready, draining=self.draining, models=self.models)  # type: ignore[arg-type]

    def tell(self, *, models: tuple[ModelStatus, ...] = (), removed: tuple[str, ...] = ()) -> None:
        """Say over every watch how the pod is now, and what changed about its models."""
        for listener in self._listeners:
            listener.put_nowait(PodEvent(pod=self.status, models=models, removed=removed))

    def tell_nonsense(self) -> None:
        """Say something over every watch that is no event."""
        for listener in self._listeners:
            listener.put_nowait(b"<html>\n")

    def end_watches(self) -> None:
        """End every watch, as a pod does that stops."""
        for listener in self._listeners:
            listener.put_nowait(None)

    async def _load(self, request: web.Request) -> web.Response:
        self.loads.append(request.path)
        if self.may_load is not None:
            await self.may_load.wait()
        if self.load_error is not None:
            problem, _ = problem_of(self.load_error)
            return web.Response(body=problem.body(), status=problem.status, content_type=CONTENT_TYPE)
        name, version = request.match_info["name"], request.match_info["version"]
        loaded = ModelStatus(id=f"run-{name}-{version}", name=name, version=version, state="ready")
        self.models = (*self.models, loaded)
        self.tell()
        report = LoadReport(model=loaded, duration_s=0.1, server="torchserve")
        return web.Response(text=report.model_dump_json(), content_type="application/json")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watches += 1
        response = web.StreamResponse(status=self.status_code, headers={"content-type": WATCH_CONTENT_TYPE})
        await response.prepare(request)
        listener: asyncio.Queue[PodEvent | bytes | None] = asyncio.Queue()
        listener.put_nowait(PodEvent(pod=self.status))
        self._listeners.append(listener)
        try:
            while (event := await listener.get()) is not None:
                await response.write(event if isinstance(event, bytes) else event.model_dump_json().encode() + b"\n")
        finally:
            self._listeners.remove(listener)
        return response


async def too_late(
    ask: Callable[[float], Awaitable[T]], *, reached: Callable[[T], object], timeout_s: float = 0.3
) -> T:
    """Return what a request ends in whose deadline passes not before it has got as far as it is to get.

    On a slow machine it may pass before: then it is asked again with twice the time, and so on. So a pod may get
    requests of earlier tries as well.

    Args:
        ask: Asks with a deadline of so many seconds.
        reached: Whether a request got there, by what it ended in or by what its pod has seen.
        timeout_s: The first deadline.
    """
    while not reached(ended := await ask(timeout_s)):
        timeout_s *= 2
        assert timeout_s < 120, "no request got there"
    return ended


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Running:
    """A gateway that serves, with a client for each of its HTTP ports."""

    settings: GatewaySettings
    addresses: Addresses
    stop: StopRequest
    task: asyncio.Task[None]
    client: httpx.AsyncClient
    admin: httpx.AsyncClient

    async def predict(self, path: str = "/predict/intent", body: bytes = b"hello", **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, content=body, headers=sent)

    async def metric(self, line: str) -> float:
        """Return the value of the metric whose name and labels are ``line``; 0 when there is none."""
        text = (await self.client.get("/metrics")).text
        values = [each.rpartition(" ")[2] for each in text.splitlines() if each.rpartition(" ")[0] == line]
        return float(values[0]) if values else 0.0


@contextlib.asynccontextmanager
async def running(*pods: FakePod | PodAddress, registry: Registry, **flags: object) -> AsyncIterator[Running]:
    """Serve a gateway on free ports until the context ends."""
    flags = {
        "registry": registry.url,
        "pods": tuple(pod if isinstance(pod, PodAddress) else pod.address for pod in pods),
        **dict.fromkeys(("port", "admin_port", "grpc_port"), 0),
        "health_interval_s": 0.5,
        "drain_timeout_s": 5,
        "lame_duck_s": 0,
        "access_log": False,
        **flags,
    }
    settings = load_settings(GatewaySettings, **flags)
    stop = StopRequest()
    ready: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(settings, stop=stop, on_ready=ready.set_result))
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        await task
    addresses = ready.result()
    async with (
        httpx.AsyncClient(base_url=addresses.gateway, timeout=120) as client,
        httpx.AsyncClient(base_url=addresses.admin, timeout=120) as admin,
    ):
        try:
            yield Running(settings, addresses, stop, task, client, admin)
        finally:
            await client.aclose()
            await admin.aclose()
            stop.set()
            await task
