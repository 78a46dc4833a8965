"""Other people's clients and proxies, which ask for an upgrade or pass on what others ask for."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

from support.ports import PROBE, Port
from support.proxy import NGINX, proxied

pytestmark = pytest.mark.timeout(180)

JAVA_CLIENT = Path(__file__).parents[1] / "support" / "java_client.py"
INNER = b"GET /models HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def ran(*command: str) -> str:
    """Run a command to its end, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_javas_client(gateway_port: Port) -> None:
    """The JDK's HttpClient asks for HTTP/2 with each request until it has it, also with one that has a body."""
    bodies = ("play some jazz", INNER.decode(), "x" * 100_000)
    said = json.loads(await ran(sys.executable, str(JAVA_CLIENT), gateway_port.url + gateway_port.post, *bodies))
    assert said == [[200, body] for body in bodies]


async def test_javas_client_of_a_sidecar(sidecar_port: Port) -> None:
    """The same without a gateway."""
    bodies = ("play some jazz", INNER.decode())
    said = json.loads(await ran(sys.executable, str(JAVA_CLIENT), sidecar_port.url + sidecar_port.post, *bodies))
    assert said == [[200, body] for body in bodies]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_with_http2(port: Port) -> None:
    """`curl --http2` asks for an upgrade as well, and is answered over HTTP/1.1."""
    asks = ("curl", "-sS", "--http2", "-w", "\n%{http_code} %{http_version}", "-H", "content-type: application/json")
    said = await ran(*asks, "-d", '{"ready": true}', port.url + port.post)
    body, _, facts = said.rpartition("\n")
    assert facts == "200 1.1"
    if port.name != "admin":
        assert body == '{"ready": true}'


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_fault_a_body_that_a_proxy_would_mix_up(gateway_port: Port, tmp_path: Path) -> None:
    """An attacker's body behind an `Upgrade` gets no answer that the proxy would give to the next caller."""
    hidden = b"POST /predict/intent HTTP/1.1\r\nhost: localhost\r\ncontent-length: 6\r\n\r\nstolen"
    attack = (
        b"POST /predict/intent HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive, upgrade\r\nupgrade: h2c\r\n"
        b"content-length: %d\r\n\r\n" % len(hidden)
    )
    mine = b"POST /predict/intent HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmine"
    async with proxied(gateway_port, tmp_path) as proxy:
        for _ in range(5):
            attacked = await proxy.answers(attack, hidden, PROBE)
            assert (attacked[0].status, attacked[0].body) == (200, hidden)
            others = await asyncio.gather(*(proxy.answers(mine) for _ in range(4)))
            assert [[(each.status, each.body) for each in answers] for answers in others] == [[(200, b"mine")]] * 4
