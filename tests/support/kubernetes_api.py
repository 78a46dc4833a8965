"""A stand-in for the part of the Kubernetes API that serves EndpointSlices, over TLS; what happens is up to a test.

Kept to what the API's documents and its clients rely on: a list has a `resourceVersion`, each change a higher one; a
watch says each change after the version that it was opened at, as one line of JSON; changes are kept for a while only.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from aiohttp import web

__all__ = ["Certificates", "Credentials", "SlicesApi", "ThreadedSlicesApi", "endpoint", "slice_of"]

T = TypeVar("T")
Json = dict[str, Any]
_PATH = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
_EXTENSIONS = """
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[req]
distinguished_name = name
prompt = no
[name]
CN = marway-tests
"""


class Certificates:
    """A certificate authority and a server's certificate for 127.0.0.1, made by the openssl command."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        config = directory / "openssl.cnf"
        config.write_text(_EXTENSIONS)
        self.bundle = directory / "ca.crt"
        self._key, self._certificate = directory / "server.key", directory / "server.crt"
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-config", str(config)]
        ca_key, request = directory / "ca.key", directory / "server.csr"
        for command in (
            ["req", "-x509", *new_key, "-extensions", "ca", "-days", "2", "-keyout", ca_key, "-out", self.bundle],
            ["req", "-new", *new_key, "-keyout", self._key, "-out", request],
            [
                *(
                    "x509",
                    "-req",
                    "-in",
                    request,
                    "-CA",
                    self.bundle,
                    "-CAkey",
                    ca_key,
                    "-CAcreateserial",
                    "-days",
                    "2",
                ),
                *("-extfile", config, "-extensions", "server", "-out", self._certificate),
            ],
        ):
            done = subprocess.run(["openssl", *map(str, command)], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr

    def context(self) -> ssl.SSLContext:
        """Return what a server needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate, self._key)
        return context


class Credentials:
    """The mount of a service account."""

    def __init__(self, directory: Path, bundle: Path, *, token: str = "first-token", namespace: str = "marway") -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        (directory / "ca.crt").write_bytes(bundle.read_bytes())
        (directory / "namespace").write_text(namespace)
        self.rotate(token)

    def rotate(self, token: str) -> None:
        """Replace the token, as the kubelet does."""
        new = self.directory / "token.new"
        new.write_text(token)
        new.replace(self.directory / "token")


def endpoint(name: str, address: str, *, ready: bool = True, terminating: bool = False, uid: str = "") -> Json:
    """Return one pod's part of a slice, as the endpoint slice controller writes it."""
    return {
        "addresses": [address],
        "conditions": {"ready": ready and not terminating, "serving": ready, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": "marway", "name": name, "uid": uid or f"uid-of-{name}"},
        "nodeName": "worker-1",
    }


def slice_of(name: str, endpoints: Sequence[Json], *, address_type: str = "IPv4", service: str = "pods") -> Json:
    """Return a slice as the API has it, without the version that it gives it."""
    return {
        "metadata": {
            "name": name,
            "namespace": "marway",
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": service,
            },
        },
        "addressType": address_type,
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "protocol": "TCP", "port": 9000}],
    }


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the API was sent: its path, query and token."""

    path: str
    query: dict[str, str]
    token: str

    @property
    def watch(self) -> bool:
        return self.query.get("watch") == "1"


@dataclass
class SlicesApi:
    """Serves lists and watches of EndpointSlices on a free port.

    Attributes:
        slices: Those that there are, by name; `put` and `delete` change them.
        version: The newest `resourceVersion`.
        forgotten: Changes up to this version are no longer kept: a watch from before gets 410.
        gone_in_stream: Whether it gets that as an ERROR event and not as the status.
        tokens: Those that are known.
        refusal: Status of everything, or None.
        watch_refusal: Status of every watch, or None.
        page: Slices of a page at most, whatever is asked for.
        piece: Bytes of a watch that are sent at once, or None for whole lines.
        body: What a list answers instead, or None.
        asked: Every request.
    """

    slices: dict[str, Json] = field(default_factory=dict)
    version: int = 1000
    forgotten: int = 0
    gone_in_stream: bool = False
    tokens: set[str] = field(default_factory=lambda: {"first-token"})
    refusal: int | None = None
    watch_refusal: int | None = None
    page: int = 500
    piece: int | None = None
    body: bytes | None = None
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    _events: list[tuple[int, Json]] = field(default_factory=list)
    _watches: list[tuple[asyncio.Queue[bytes | None], web.Request]] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    async def start(self, certificates: Certificates) -> None:
        app = web.Application()
        app.router.add_get(_PATH, self._get)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=certificates.context())
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            self.cut()
            await runner.cleanup()

    @property
    def environment(self) -> dict[str, str]:
        """What Kubernetes sets in a container's environment."""
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}

    @property
    def watches(self) -> int:
        """Watches that are open."""
        return len(self._watches)

    @property
    def lists(self) -> int:
        """Lists that were asked for."""
        return sum(not asked.watch for asked in self.asked)

    def put(self, found: Json) -> None:
        """Add a slice or replace the one of its name."""
        name = found["metadata"]["name"]
        self._note("MODIFIED" if name in self.slices else "ADDED", found)
        self.slices[name] = self._events[-1][1]["object"]

    def delete(self, name: str) -> None:
        """Remove a slice."""
        self._note("DELETED", self.slices.pop(name))

    def bookmark(self) -> None:
        """Say how far every watch is."""
        self.version += 1
        said = {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1"}
        metadata = {"resourceVersion": str(self.version), "creationTimestamp": None}
        self.say(_line({"type": "BOOKMARK", "object": {**said, "metadata": metadata, "endpoints": None}}))

    def say(self, data: bytes) -> None:
        """Say something over every watch."""
        for queue, _ in self._watches:
            queue.put_nowait(data)

    def end(self) -> None:
        """End every watch as the API does when its time is over."""
        for queue, _ in self._watches:
            queue.put_nowait(None)

    def cut(self) -> None:
        """Break the connection of every watch."""
        for _, request in self._watches:
            if request.transport is not None:
                request.transport.abort()

    def _note(self, kind: str, found: Json) -> None:
        self.version += 1
        found = copy.deepcopy(found)
        found["metadata"]["resourceVersion"] = str(self.version)
        event = {"type": kind, "object": {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", **found}}
        self._events.append((self.version, event))
        self.say(_line(event))

    async def _get(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        asked = Asked(request.path, dict(request.query), token)
        self.asked.append(asked)
        refusal = self.refusal or (None if token in self.tokens else 401)
        refusal = refusal or (self.watch_refusal if asked.watch else None)
        if refusal is not None:
            return _status(refusal)
        return await (self._watch(request) if asked.watch else self._list(request))

    async def _list(self, request: web.Request) -> web.Response:
        if self.body is not None:
            return web.Response(body=self.body, content_type="application/json")
        service = request.query["labelSelector"].removeprefix("kubernetes.io/service-name=")
        every = [
            each for each in self.slices.values() if each["metadata"]["labels"]["kubernetes.io/service-name"] == service
        ]
        start = int(request.query.get("continue", "0"))
        metadata = {"resourceVersion": str(self.version)}
        end = start + min(self.page, int(request.query["limit"]))
        if end < len(every):
            metadata |= {"continue": str(end), "remainingItemCount": str(len(every) - end)}
        found = {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata}
        return web.json_response({**found, "items": every[start:end] or None})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self.forgotten and not self.gone_in_stream:
            return _status(410)
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        if since < self.forgotten:
            error = json.loads(_status(410).text or "")
            queue.put_nowait(_line({"type": "ERROR", "object": error}))
            queue.put_nowait(None)
        else:
            for version, event in self._events:
                if version > since:
                    queue.put_nowait(_line(event))
        watch = queue, request
        self._watches.append(watch)
        try:
            while (data := await queue.get()) is not None:
                step = self.piece or len(data)
                for start in range(0, len(data), step):
                    await response.write(data[start : start + step])
                    await asyncio.sleep(0)
        except ConnectionError:
            pass
        finally:
            self._watches.remove(watch)
        return response


def _line(event: Json) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def _status(code: int) -> web.Response:
    reasons = {401: "Unauthorized", 403: "Forbidden", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}
    messages = {
        401: "Unauthorized",
        403: 'endpointslices.discovery.k8s.io is forbidden: User "system:serviceaccount:marway:marway-gateway" cannot '
        'list resource "endpointslices" in API group "discovery.k8s.io" in the namespace "marway"',
        410: "too old resource version: 900 (1000)",
    }
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": messages.get(code, "it is not well"),
        "reason": reasons[code],
        "code": code,
    }
    return web.json_response(status, status=code, headers={"retry-after": "1"} if code == 429 else None)


class ThreadedSlicesApi:
    """A `SlicesApi` on a thread of its own, for tests that block; used as a context manager it is stopped."""

    def __init__(self, certificates: Certificates) -> None:
        self.api = SlicesApi()
        self._certificates = certificates
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kubernetes-api")

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.api.start(self._certificates), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(self.api.stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def do(self, what: Callable[[SlicesApi], T]) -> T:
        """Call something with the API, on its own thread."""

        async def call() -> T:
            return what(self.api)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(30)
