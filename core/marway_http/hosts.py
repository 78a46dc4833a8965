"""Keeps web pages of strangers away from ports that obey whoever reaches them.

A page in somebody's browser may send requests to every address that the browser reaches, loopback as well. Two things
give such requests away: another page's `Origin` (RFC 6454), and, where the page's own name was made to resolve to this
port's address (DNS rebinding), that name in `Host`. Programs send no `Origin`, and know the port by an address or by
a name of ours.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from marway.errors import ForeignOrigin, MarwayError, Misdirected, clip

__all__ = ["HostGuard", "parse_hosts", "parse_origins"]

_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_ALWAYS: Final = ("*.localhost", "*.svc", "*.cluster.local")
"""Names that no public DNS server may give to anybody: RFC 6761, and Kubernetes' own."""
_PATTERN: Final = re.compile(r"\*|(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_KNOWN_MAX: Final = 256


def parse_hosts(value: object) -> object:
    """Return a setting's names, of a list or with commas between them.

    Raises:
        ValueError: One cannot be a name.
    """
    listed = _listed(value)
    if listed is None:
        return value
    names = tuple(name.lower().rstrip(".") for name in listed)
    for name in names:
        if not _PATTERN.fullmatch(name):
            raise ValueError(f"{clip(name, 80)!r} is no host name: write one such as pod.example.com, or *.example.com")
    return names


def parse_origins(value: object) -> object:
    """Return a setting's origins, of a list or with commas between them, as browsers write them.

    Raises:
        ValueError: One is no origin.
    """
    listed = _listed(value)
    if listed is None:
        return value
    origins = tuple(map(_origin, listed))
    if "*" in origins and len(origins) > 1:
        raise ValueError("'*' means every origin: give it alone, or name those that are meant")
    return origins


def _listed(value: object) -> list[str] | None:
    items = value.split(",") if isinstance(value, str) else value
    return [str(each).strip() for each in items if str(each).strip()] if isinstance(items, list | tuple) else None


def _origin(text: str) -> str:
    if text == "*":
        return text
    wrong = ValueError(f"{clip(text, 80)!r} is no origin: write scheme, host and port as in https://app.example.com")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong from None
    bare = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc or "*" in text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not bare:
        raise wrong
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + ("" if port in (None, usual) else f":{port}")


class HostGuard:
    """Says which requests come from where they may.

    Without any setting, a host may be an IP address, which cannot be rebound; `localhost`; a name without a dot, which
    no public domain is; this machine's own name; and a name within Kubernetes: `NAME.NAMESPACE`, where the namespace is
    this pod's own, `NAME.NAMESPACE.svc` and what the cluster's domain makes of it.

    Args:
        allowed: Further names: `pod.example.com`, `*.example.com` for all below it, `*` for any.
        bound: The address or name that the port is bound to.
        setting: What the setting with these names is called, for the error's text.
        resolv_conf: Where the pod's namespace and the cluster's domain are found, in `search`.
    """

    def __init__(
        self, allowed: Iterable[str] = (), *, bound: str, setting: str, resolv_conf: Path = _RESOLV_CONF
    ) -> None:
        self._setting = setting
        self._listed = tuple(allowed)
        self._ours = *_ALWAYS, *_kubernetes(resolv_conf), bound.lower(), socket.gethostname().lower()
        self._is_ours = lru_cache(maxsize=_KNOWN_MAX)(self._is_name_of_ours)

    def __call__(self, headers: Iterable[tuple[bytes, bytes]]) -> MarwayError | None:
        """Return why a request with these headers is refused, or None; names are in lower case."""
        given = dict(headers)
        host, origin = given.get(b"host"), given.get(b"origin")
        if host is not None and not self._is_ours(host):  # HTTP/1.0 may have none; browsers do not speak it
            return Misdirected(
                f"this port is not called {clip(host.decode('latin-1'), 200)!r}: if that is a name of it, add the name "
                f"to {self._setting}"
            )
        if origin is not None and not self._may_ask(origin, host):
            return ForeignOrigin(
                f"pages of {clip(origin.decode('latin-1'), 200)!r} may not send requests to this port: if they should, "
                f"add the host to {self._setting}"
            )
        return None

    def _is_name_of_ours(self, host: bytes) -> bool:
        name = _name_of(host.decode("latin-1"))
        if _is_among(name, (*self._listed, *self._ours)) or (name and "." not in name and ":" not in name):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _may_ask(self, origin: bytes, host: bytes | None) -> bool:
        """Return whether a page is this port's own, or of a host that was allowed by name."""
        try:
            netloc = urlsplit(origin.decode("latin-1")).netloc.lower()
        except ValueError:
            return False
        own = host is not None and netloc == host.decode("latin-1").lower()
        return bool(netloc) and (own or _is_among(_name_of(netloc), self._listed))


def _is_among(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _name_of(netloc: str) -> str:
    """Return the host of `host[:port]`, in lower case, without brackets and the root's dot."""
    host = netloc.rpartition("@")[2]
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _kubernetes(resolv_conf: Path) -> tuple[str, ...]:
    """Return what names this pod's cluster gives: its search list begins with `NAMESPACE.svc.DOMAIN`."""
    try:
        lines = resolv_conf.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    searched = [line.split()[1:] for line in lines if line.startswith("search")]
    for domain in searched[-1] if searched else ():
        namespace, service, cluster = domain.lower().rstrip(".").partition(".svc.")
        if service and namespace and "." not in namespace:
            return f"*.{namespace}", f"*.svc.{cluster}"
    return ()
