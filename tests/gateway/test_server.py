import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from aiohttp import web

from gateway.fakes import FakePod, Running, answer, free_port, hang, running
from marway.errors import InvalidSettings
from marway.registry import Registry
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)


async def test_drain(registry: Registry, make_pod: MakePod) -> None:
    """A gateway that is told to stop takes no new connection and finishes the request it has, then ends."""
    go_on = asyncio.Event()

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return await answer(pod, request)

    pod = await make_pod(behave=behave)
    async with running(pod, registry=registry) as gateway:
        asking = asyncio.create_task(gateway.predict())
        await until(lambda: pod.requests)
        gateway.stop.set()
        async with httpx.AsyncClient() as other:
            while True:
                try:
                    assert (await other.get(f"{gateway.addresses.gateway}/readyz")).status_code in (200, 503)
                except httpx.TransportError:
                    break
        assert not gateway.task.done()
        go_on.set()
        answered = await asking
        assert (answered.status_code, answered.content) == (200, b"hello")
        assert answered.headers["connection"] == "close"
        await asyncio.wait_for(gateway.task, 5)


async def test_drain_is_bounded(registry: Registry, make_pod: MakePod) -> None:
    """A request that does not end within the drain's time gets a 503 that says the gateway stops."""
    pod = await make_pod(behave=hang)
    async with running(pod, registry=registry, drain_timeout_s=1) as gateway:
        asking = asyncio.create_task(gateway.predict())
        await until(lambda: pod.requests)
        gateway.stop.set()
        refused = await asking
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        await asyncio.wait_for(gateway.task, 5)


@pytest.mark.parametrize("setting", ["port", "admin_port", "grpc_port"])
async def test_port_in_use(registry: Registry, setting: str) -> None:
    """A port that is taken is one clear error that names the port and the flag, and nothing stays open."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSettings, match=f"{port}.*--{setting.replace('_', '-')}"):
            async with running(registry=registry, **{setting: port}):
                pass


async def test_address_of_another_machine(registry: Registry) -> None:
    """An address that this machine does not have is one clear error."""
    with pytest.raises(InvalidSettings, match=r"cannot listen on 192\.0\.2\.1"):
        async with running(registry=registry, host="192.0.2.1"):
            pass


async def test_two_gateways_agree(registry: Registry, make_pod: MakePod) -> None:
    """Two gateways side by side send a version's requests to the same pod."""
    pods = [await make_pod(name) for name in "abc"]
    async with running(*pods, registry=registry) as one, running(*reversed(pods), registry=registry) as other:
        await one.predict()
        await other.predict()
    assert sorted(len(pod.requests) for pod in pods) == [0, 0, 2]


async def _raw(gateway: Running, data: bytes) -> bytes:
    parts = urlsplit(gateway.addresses.gateway)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(data)
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"x-many: 1\r\n" * 101 + b"\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
async def test_headers_too_large(registry: Registry, head: bytes) -> None:
    """Headers beyond the limits are a 431 problem, and the connection ends."""
    async with running(registry=registry) as gateway:
        refused = await _raw(gateway, head)
    assert refused.startswith(b"HTTP/1.1 431 ")
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["code"] == "headers_too_large"


async def test_what_is_no_http(registry: Registry) -> None:
    """What is no HTTP is a 400 problem, and the connection ends."""
    async with running(registry=registry) as gateway:
        refused = await _raw(gateway, b"hello\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in refused


_MAIN = """
import typer
from marway.errors import MarwayError
from marway_gateway.cli import register
app = typer.Typer(pretty_exceptions_enable=False)
app.callback()(lambda: None)
register(app)
try:
    app()
except MarwayError as exc:
    raise SystemExit(f"marway: {exc.message}")
"""


def _start(*flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _MAIN, "gateway", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MARWAY_")},
    )


def test_process(registry: Registry, tmp_path: Path) -> None:
    """`marway gateway` says on stdout where it serves, and ends with exit code 0 soon after SIGTERM."""
    ports = ("--port", "0", "--admin-port", "0", "--grpc-port", "0")
    process = _start(
        "--registry", registry.url, "--pods", f"a=http://127.0.0.1:{free_port()}", *ports, "--home", str(tmp_path)
    )
    with process:
        assert process.stdout is not None
        lines = (json.loads(line) for line in process.stdout)
        addresses = next(line for line in lines if line["message"] == "ready")
        assert httpx.get(f"{addresses['gateway']}/healthz").status_code == 200
        assert httpx.get(f"{addresses['admin']}/pods").json()[0]["name"] == "a"
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(timeout=15) == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "no registry is named"),
        (("--registry", "ftp://x"), "is of no known kind"),
        (("--registry", "/tmp/x", "--pods", "nonsense"), "is no sidecar's URL"),
        (("--registry", "/tmp/x", "--config", "/nowhere.toml"), "cannot read the configuration file"),
    ],
)
def test_wrong_usage(flags: tuple[str, ...], says: str) -> None:
    """Settings that cannot be used are one clear line and exit code 1."""
    process = _start(*flags, "--port", "0", "--admin-port", "0", "--grpc-port", "0")
    with process:
        assert process.stderr is not None
        written = process.stderr.read()
        assert process.wait(timeout=15) == 1
    assert says in written
    assert "Traceback" not in written


def test_help_is_fast() -> None:
    """The verb's module imports none of the heavy packages before the verb runs."""
    heavy = "('fastapi', 'grpc', 'aiohttp', 'uvicorn', 'pydantic')"
    code = f"import sys, marway_gateway.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


async def test_lame_duck(registry: Registry, make_pod: MakePod) -> None:
    """Told to stop, a gateway takes requests for a while, says that it is not ready, and sends clients away."""
    pod = await make_pod()
    async with running(pod, registry=registry, lame_duck_s=2) as gateway:
        assert "connection" not in (await gateway.predict()).headers
        gateway.stop.set()
        while (await gateway.client.get("/readyz")).status_code == 200:
            pass
        answered = await gateway.predict()
        assert (answered.status_code, answered.headers["connection"]) == (200, "close")
        await asyncio.wait_for(gateway.task, 10)
