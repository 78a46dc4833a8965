"""Settings of the gateway: `MARWAY_GATEWAY_*`, or `config/gateway.toml`, which shows them all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from marway.settings import ComponentSettings

__all__ = ["GatewaySettings", "PodAddress"]

_POD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\[\]-]{0,127}")

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1)]


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


def _parse_pods(value: object) -> object:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError("pods are a list of URLs, or one string with commas between them")
    pods = tuple(
        item if isinstance(item, PodAddress) else PodAddress.parse(str(item)) for item in items if str(item).strip()
    )
    names = [pod.name for pod in pods]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two pods are called {twice!r}: give each a name of its own, NAME=URL")
    return pods


class GatewaySettings(ComponentSettings):
    """All that can be set about a gateway."""

    model_config = SettingsConfigDict(env_prefix="MARWAY_GATEWAY_")

    registry: str | None = None
    """URL of the registry, `file:///path`. No default, because a gateway on an empty registry looks healthy and
    knows no model; `MARWAY_REGISTRY` serves as well."""

    host: str = "127.0.0.1"
    """Address of the public HTTP port. Loopback, so that nothing is exposed by accident; 0.0.0.0 in a container."""
    port: Port = 8000
    """Public HTTP port; 0 picks a free one. 8000 is where the examples call."""
    admin_host: str = "127.0.0.1"
    """Address of the admin port. Loopback, because whoever reaches it can see and steer every pod."""
    admin_port: Port = 8001
    """Admin HTTP port; 0 picks a free one. Next to the public one."""
    grpc_host: str = "127.0.0.1"
    """Address of the gRPC port. Loopback, as for the public port."""
    grpc_port: Port = 8002
    """gRPC port; 0 picks a free one. Next to the admin port."""

    admin_tokens_file: Path | None = None
    """File of bearer tokens that the admin port wants: one a line, `#` comments, `NAME: TOKEN` to have the name in a
    model's history. Read again when it changes. No default: loopback needs none, and any other `admin_host` does."""
    predict_tokens_file: Path | None = None
    """File of bearer tokens that the public and the gRPC port want; it may be the same file. No default: within a
    cluster, who may call is usually said elsewhere. `/healthz`, `/readyz` and `/metrics` stay open."""

    pods: Annotated[tuple[PodAddress, ...], NoDecode, BeforeValidator(_parse_pods)] = ()
    """Sidecars, as `URL` or `NAME=URL`, in a list or with commas between them. None by default: only the deployment
    knows them. A pod without a name is called by its host and port."""

    max_body_bytes: Bytes = 64 * 1024 * 1024
    """Largest request body in bytes; a larger one is refused with 413. 64 MiB lets a batch of pictures through."""
    buffered_body_bytes: Bytes = 1024 * 1024
    """Largest body in bytes that is held in memory, of a request or of an answer. A request body up to it can be sent
    to another pod; a larger one streams through and cannot. 1 MiB holds nearly all requests and, a thousand times
    over, still fits a pod's memory."""

    default_timeout_s: Seconds = 60.0
    """Deadline in seconds of a request that names none. A minute outlasts a cold load of a usual model."""
    max_timeout_s: Seconds = 3600.0
    """Longest deadline in seconds; a longer one is cut to it. An hour, so that no request holds its slot for ever."""

    state_ttl_s: Annotated[float, Field(gt=0, le=2)] = 2.0
    """How old in seconds a model's labels and serving settings may be while the registry answers. At most 2: within
    that time every gateway and sidecar honours a moved label."""
    state_max_stale_s: Seconds | None = None
    """How old in seconds they may be while the registry does not answer; none means no bound, because an old answer
    is better than no answer to nearly everybody."""
    negative_ttl_s: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 1.0
    """How long in seconds "there is no such model, version or label" is remembered. 1 stops a stream of wrong
    requests from becoming a stream of registry look-ups, and a new model is still seen at once by people."""
    registry_timeout_s: Seconds = 2.0
    """How long in seconds a request waits for the registry before the last known state serves. Local and S3 look-ups
    take milliseconds; past 2 s the store is as good as away."""
    registry_threads: Annotated[int, Field(ge=1, le=64)] = 8
    """Threads that wait for the registry, whose calls block. 8 read 8 models at once; the rest queue."""

    connect_timeout_s: Seconds = 1.0
    """Time in seconds to open a connection to a pod before the next pod is tried. Within a cluster it takes 1 ms."""
    max_retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further attempts after a pod was lost with the request. 2, as Envoy; attempts that no pod accepted are not
    counted, because they cost nothing."""
    eject_after_failures: Annotated[int, Field(ge=1)] = 5
    """Connections lost in a row after which a pod is ejected. 5, as Envoy."""
    eject_s: Seconds = 30.0
    """Time in seconds that a pod's first ejection lasts; the n-th lasts n times as long. 30, as Envoy. It ends sooner
    when the pod reports that it is ready."""
    eject_max_s: Seconds = 300.0
    """Longest ejection in seconds. 300, as Envoy."""
    health_interval_s: Annotated[float, Field(ge=0.05, le=60)] = 1.0
    """Time in seconds between two looks at a pod's status, and how long one may take. 1, so that a pod that is gone is
    out of rotation within 2 s, and one that hangs, which takes two looks to tell from a busy one, within about 3 s."""

    cache_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024
    """Bytes of answers that are kept to be given again, of all models whose serving settings say `cache`; 0 keeps
    none. 64 MiB holds some 50,000 small answers and still fits a small container."""
    cache_ttl_s: Seconds = 300.0
    """How long in seconds a kept answer is given again. A version never changes, so this bounds only how long the
    answer of a model that says something else each time is repeated. Five minutes: most repetition is closer."""

    drain_timeout_s: Seconds = 10.0
    """Time in seconds that requests in flight get to finish after SIGTERM; 3 when the process that started the gateway
    is gone. 10 fits into the 30 s that Kubernetes gives, with room to spare."""

    access_log: bool = True
    """One JSON line a request on stderr, without payloads; health and metrics requests are left out."""
