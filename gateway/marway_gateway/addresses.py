"""Addresses as settings write them: where pods are, each or behind a name, and where archives may be taken from."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from marway.errors import clip

__all__ = ["PodAddress", "PodService", "PodSlices", "bracketed", "is_loopback", "parse_pods", "parse_sources"]

_POD_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\[\]-]{0,127}")
_DNS_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""What Kubernetes wants of the names of Services and namespaces (RFC 1123)."""


_SCHEMES: Final = ("file", "http", "https")
"""Of places that archives may be taken from."""


@dataclass(frozen=True, slots=True)
class PodAddress:
    """Where one sidecar answers.

    Attributes:
        name: What gateways call the pod. Placement hashes it, so every gateway must use the same names.
        url: Its base URL, without a path at its end.
    """

    name: str
    url: str

    @classmethod
    def parse(cls, text: str) -> PodAddress:
        """Parse ``URL`` or ``NAME=URL``; without a name it is the URL's host and port.

        Raises:
            ValueError: It is neither.
        """
        name, given, url = text.strip().partition("=") if "=" in text.partition("://")[0] else ("", "", text.strip())
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url[:200]!r} is no sidecar's URL: write http://HOST:PORT or NAME=http://HOST:PORT")
        name = name.strip() if given else parts.netloc
        if not _POD_NAME.fullmatch(name):
            raise ValueError(f"{name[:80]!r} cannot be a pod's name: use letters, digits, '.', '_', ':' or '-'")
        return cls(name, url.rstrip("/"))

    @classmethod
    def at(cls, host: str, port: int, *, name: str | None = None) -> PodAddress:
        """Return the pod at an IP address, called by address and port if it has no name."""
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return cls(name or where, f"http://{where}")


@dataclass(frozen=True, slots=True)
class PodService:
    """A DNS name behind which sidecars answer, such as a headless Service's: `dns://NAME:PORT`.

    Attributes:
        host: The name, looked up over and over; each address that it has is a pod.
        port: Where sidecars listen.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"dns://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class PodSlices:
    """A Kubernetes Service whose EndpointSlices name the pods: `kubernetes://SERVICE.NAMESPACE:PORT`, or without one.

    Attributes:
        service: The Service's name.
        namespace: Its namespace, or None for the one that the gateway runs in.
        port: Where sidecars listen, in the pods.
    """

    service: str
    namespace: str | None
    port: int

    def __str__(self) -> str:
        where = f"{self.service}.{self.namespace}" if self.namespace else self.service
        return f"kubernetes://{where}:{self.port}"


def _parse_pod(item: object) -> PodAddress | PodService | PodSlices:
    if isinstance(item, PodAddress | PodService | PodSlices):
        return item
    text = str(item).strip()
    if not text.startswith(("dns:", "kubernetes:")):
        return PodAddress.parse(text)
    parts = urlsplit(text)
    try:
        port = parts.port or 0
    except ValueError:
        port = 0
    host = "" if parts.path or parts.query or parts.fragment or parts.username else parts.hostname or ""
    if parts.scheme == "dns":
        if not (host and port):
            raise ValueError(f"{text[:200]!r} names no pods: write dns://NAME:PORT, as in dns://pods.marway.svc:9000")
        return PodService(host, port)
    service, *namespace = host.split(".")
    if not port or len(namespace) > 1 or not all(map(_DNS_LABEL.fullmatch, (service, *namespace))):
        raise ValueError(
            f"{text[:200]!r} names no Service: write kubernetes://SERVICE.NAMESPACE:PORT, "
            "as in kubernetes://marway-pods.marway:9000"
        )
    return PodSlices(service, namespace[0] if namespace else None, port)


def parse_pods(value: object) -> object:
    """Parse a list of pods, or one string with commas between them.

    Raises:
        ValueError: It is neither, or two pods have the same name.
    """
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError("pods are a list of URLs, or one string with commas between them")
    pods = tuple(_parse_pod(item) for item in items if str(item).strip())
    names = [pod.name for pod in pods if isinstance(pod, PodAddress)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two pods are called {twice!r}: give each a name of its own, NAME=URL")
    return pods


def parse_sources(value: Any) -> tuple[str, ...]:
    """Return places from a list, a JSON list or a text with commas between them; each ends with a slash.

    Raises:
        ValueError: One is no directory as `file:///…` and no beginning of an address.
    """
    if isinstance(value, str):
        value = json.loads(value) if value.lstrip().startswith("[") else value.split(",")
    places = [str(each).strip() for each in value if str(each).strip()]
    for each in places:
        parts = urlsplit(each)
        absolute = parts.path.startswith("/") and not parts.netloc if parts.scheme == "file" else bool(parts.netloc)
        if parts.scheme not in _SCHEMES or not absolute or parts.query or parts.fragment or ".." in parts.path:
            raise ValueError(
                f"{clip(each, 200)!r} is no place of archives: give a directory as file:///model-store, or the "
                "beginning of an address as https://models.example.com/"
            )
    return tuple(each if each.endswith("/") else each + "/" for each in places)


def is_loopback(host: str) -> bool:
    """Return whether a host, by its name or address, is this machine to itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bracketed(host: str) -> str:
    """Return a host as URLs have it."""
    return f"[{host}]" if ":" in host else host
