"""Web pages of strangers: neither their `Origin` nor a name of theirs in `Host` gets anything of a port that obeys."""

from __future__ import annotations

import json

from gateway.fakes import FakePod, running
from marway.registry import Registry
from support.ports import Port


def get(host: str, *lines: str, method: str = "GET", path: str = "/healthz") -> bytes:
    """Return a request with this `Host`, after which the connection ends."""
    lines = (f"{method} {path} HTTP/1.1", f"host: {host}", "connection: close", *lines, "", "")
    return "\r\n".join(lines).encode()


OURS = (
    "127.0.0.1:8001",
    "[::1]:9000",
    "10.1.2.3:9000",
    "localhost",
    "a.localhost:80",
    "pod-a:9000",
    "marway-admin.n.svc",
)
THEIRS = (
    "evil.example",
    "evil.example:8001",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "svc.evil.example",
    "",
)
ORIGINS = ("http://evil.example", "null", "http://127.0.0.1:1", "https://localhost.evil.example", "http://[", "file://")


async def test_a_name_that_is_not_ours(admin_port: Port, sidecar_port: Port) -> None:
    """A page whose name was made to resolve to the port's address gets 421, whatever it asks (RFC 9110 §15.5.20)."""
    for port in (admin_port, sidecar_port):
        said = {host: (await port.answers(get(host)))[0] for host in OURS + THEIRS}
        assert {host: each.status for host, each in said.items()} == {
            **dict.fromkeys(OURS, 200),
            **dict.fromkeys(THEIRS, 421),
        }
        problem = json.loads(said["evil.example"].body)
        assert (problem["code"], "evil.example" in problem["detail"]) == ("misdirected", True)
        assert "allowed_hosts" in problem["detail"]


async def test_another_pages_origin(admin_port: Port, sidecar_port: Port) -> None:
    """A page that was loaded from elsewhere gets 403; one of the port's own may ask, and programs name no origin."""
    for port in (admin_port, sidecar_port):
        for origin in ORIGINS:
            (refused,) = await port.answers(get("localhost", f"origin: {origin}"))
            assert (refused.status, json.loads(refused.body)["code"]) == (403, "foreign_origin"), origin
        (own,) = await port.answers(get("localhost:8001", "origin: http://localhost:8001"))
        assert own.status == 200


async def test_fault_nothing_is_done_for_strange_pages(sidecar_port: Port) -> None:
    """A refused drain drains nothing, and a refused prediction, with the body still to come, is not begun."""
    drain = get("localhost", "origin: http://evil.example", "content-length: 0", method="POST", path="/drain")
    predict = get("evil.example", "content-length: 100000", method="POST", path="/predict/intent") + b"x" * 100_000
    frames = get("evil.example", method="GET", path="/frames").replace(
        b"connection: close", b"connection: upgrade\r\nupgrade: marway-frames/1\r\nx-last: 1"
    )
    assert [each.status for each in await sidecar_port.answers(drain)] == [403]
    assert [each.status for each in await sidecar_port.answers(predict)] == [421]
    assert [each.status for each in await sidecar_port.answers(frames, get("localhost"))] == [421, 200]
    (status,) = await sidecar_port.answers(get("localhost", path="/status"))
    assert json.loads(status.body)["draining"] is False


async def test_names_that_were_allowed(registry: Registry) -> None:
    """A setting adds names, and all below a name; pages of such hosts may ask as well."""
    async with running(registry=registry, admin_allowed_hosts="admin.example.com, *.corp.example") as gateway:
        port = Port("admin", gateway.addresses.admin, "")
        asked = (
            get("admin.example.com"),
            get("ADMIN.example.com.:443"),
            get("a.b.corp.example:8001"),
            get("localhost", "origin: https://a.corp.example"),
            get("corp.example"),
            get("other.example.com"),
        )
        assert [(await port.answers(each))[0].status for each in asked] == [200, 200, 200, 200, 421, 421]
    async with running(registry=registry, admin_allowed_hosts=["*"]) as gateway:
        port = Port("admin", gateway.addresses.admin, "")
        (answered,) = await port.answers(get("any.example", "origin: https://other.example"))
        assert answered.status == 200


async def test_the_public_port_has_any_name(gateway_port: Port) -> None:
    """The gateway's public port changes nothing, and is known by whatever name an Ingress gives it."""
    (answered,) = await gateway_port.answers(get("models.example.com", "origin: https://app.example.com"))
    assert answered.status == 200


async def test_writes_are_json(registry: Registry) -> None:
    """What an HTML form can send changes nothing on the admin port; an empty write needs no type."""
    pod = FakePod("a")
    await pod.start()
    async with running(pod, registry=registry) as gateway:
        body = b'{"version": "1.0", "force": true}'
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            said = await gateway.admin.put("/models/intent/labels/STG", content=body, headers={"content-type": kind})
            assert (said.status_code, said.json()["code"]) == (415, "unsupported_media"), kind
        untyped = await gateway.admin.put("/models/intent/labels/STG", content=body)
        assert untyped.status_code == 415
        form = {"content-type": "application/x-www-form-urlencoded"}
        for path in ("/pods/a/drain", "/v2/repository/models/intent/unload"):
            assert (await gateway.admin.post(path, content=b"", headers=form)).status_code == 415
        for kind in ("application/json", "application/json; charset=utf-8", "application/merge-patch+json"):
            said = await gateway.admin.put("/models/intent/labels/STG", content=body, headers={"content-type": kind})
            assert said.status_code == 200, (kind, said.text)
        assert (await gateway.admin.delete("/pods/a/drain")).status_code != 415
    await pod.stop()
