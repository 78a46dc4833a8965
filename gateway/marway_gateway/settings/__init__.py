"""Settings of the gateway: `MARWAY_GATEWAY_*`, or `config/gateway.toml`, which shows them all.

Groups of them are classes in modules of their own here, which `GatewaySettings` has as its bases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from marway_gateway.addresses import PodAddress, PodService, PodSlices, parse_pods, parse_sources
from marway_gateway.settings.connections import ConnectionSettings
from marway_gateway.settings.console import ConsoleSettings
from marway_gateway.settings.later import LaterSettings
from marway_gateway.settings.observed import ObservedSettings
from marway_gateway.settings.traces import TraceSettings
from marway_gateway.settings.units import Bytes, Count, Percent, Port, Seconds
from marway_http.hosts import parse_hosts, parse_origins

__all__ = ["GatewaySettings", "PodAddress", "PodService", "PodSlices"]


class GatewaySettings(ObservedSettings, ConnectionSettings, ConsoleSettings, LaterSettings, TraceSettings):
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

    admin_grpc_port: Port = 8003
    """Port of TorchServe's management API over gRPC, at `admin_host`, where `torchserve_management` is on; 0 picks a
    free one. Next to the gRPC port."""

    torchserve_management: bool = False
    """Whether the admin port serves TorchServe's management API, for tools that call it; `GET /models` and
    `/models/{model}` there are TorchServe's then. Off, as Marway's own verbs do the same and more."""
    torchserve_management_sources: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_sources)] = ()
    """Where that API may take archives from beside the registry and a call's own body, in a list or with commas between
    them: directories as `file:///model-store`, beginnings of addresses as `https://models.example.com/`. None by
    default: whoever may name any address has the gateway fetch it."""
    torchserve_management_archive_bytes: Bytes = 4 * 1024**3
    """Largest archive in bytes that it takes as a body or downloads. 4 GiB: it passes through a temporary file."""
    torchserve_management_unregister: Literal["unload", "tombstone"] = "unload"
    """What its unregister does: unloads a version, which the next request loads again, or deletes it for good. Unload,
    as what is deleted never comes back under its version."""

    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that share the three ports, Linux only. 1, which uses one processor; each is a gateway of its own, with
    its own connections to pods, cache and limits, and takes about 90 MiB beside the libraries that all share. More pay
    where one is busy all the time."""

    admin_tokens_file: Path | None = None
    """File of bearer tokens that the admin port wants: one a line, `#` comments, `NAME: TOKEN` to have the name in a
    model's history. Read again when it changes. No default: loopback needs none, and any other `admin_host` does."""
    admin_allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_hosts)] = ()
    """Names that requests to the admin port may have in `Host`, and pages of which may ask: in a list or with commas
    between them, also `*.example.com` for all below a name, and `*` for any. None by default: IP addresses,
    `localhost`, names without a dot, the host's own name and those within Kubernetes always may. Needed behind an
    Ingress."""
    predict_tokens_file: Path | None = None
    """File of bearer tokens that the public and the gRPC port want; it may be the same file. No default: within a
    cluster, who may call is usually said elsewhere. `/healthz`, `/readyz`, `/metrics` and what describes the API (`/`,
    `/docs`, `/openapi.json`) stay open."""

    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_origins)] = ()
    """Origins of web pages that may read what the public port answers, such as `https://app.example.com`, in a list or
    with commas between them; `*` alone means every page. None by default: without, browsers show no page an answer."""

    pods: Annotated[tuple[PodAddress | PodService | PodSlices, ...], NoDecode, BeforeValidator(parse_pods)] = ()
    """Sidecars, as `URL`, `NAME=URL`, `dns://NAME:PORT` or `kubernetes://SERVICE.NAMESPACE:PORT`, in a list or with
    commas between them. None by default: only the deployment knows them. A pod without a name is called by its host and
    port; one found by DNS by its address and port; one of a Service's EndpointSlices as Kubernetes calls it."""
    dns_interval_s: Annotated[float, Field(ge=0.1, le=300)] = 5.0
    """Time in seconds between two look-ups of a `dns://` name. 5, as DNS servers in Kubernetes answer from caches of
    about that age; a pod that goes is known sooner from its own word."""
    kubernetes_credentials_dir: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    """Directory with `token`, `ca.crt` and `namespace` for `kubernetes://`, read again as they change. Where Kubernetes
    mounts a pod's service account; another for a projected volume of one's own."""
    algorithm_pools: dict[str, str] = Field(default_factory=dict)
    """Pools by algorithm, as `{"transformer": "gpu"}`, for versions that name no pool themselves; `*` stands for any
    other. None by default: such a version may run on any pod of its model server."""
    spill_requests: Count = 16
    """Requests of one version in flight on a pod from which on the version's next pod serves it as well. 16 keeps a
    few workers busy with a batch in the making; fewer would spread small loads over many pods' memory."""
    spill_factor: Annotated[float, Field(ge=1, le=10)] = 1.25
    """A pod that has more than so many times the mean of requests in flight, and at least `spill_requests`, is passed
    over as long as another one serves the version. 1.25 as HAProxy's documentation advises for its
    `hash-balance-factor`: lower moves versions about, higher leaves hot pods hot."""
    load_ahead_concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    """Loads that this gateway asks of pods at once before requests go there. 4 fills a new pod in little time and
    leaves the archive store and its CPUs to requests."""

    max_body_bytes: Bytes = 64 * 1024 * 1024
    """Largest request body in bytes; a larger one is refused with 413. 64 MiB lets a batch of pictures through."""
    buffered_body_bytes: Bytes = 1024 * 1024
    """Largest body in bytes that is held in memory, of a request or of an answer. A request body up to it can be sent
    to another pod; a larger one streams through and cannot. 1 MiB holds nearly all requests and, a thousand times
    over, still fits a pod's memory."""

    converters: Annotated[int, Field(ge=1, le=64)] = 2
    """Processes that turn v1 and v2 bodies over 32 KiB into what pods are sent, and their answers back; each is started
    when it is first needed, and takes about 40 MB and what the body at hand needs. 2, so that one long body does not
    hold up all others; more pay where such bodies are the rule and the gateway has CPUs for them."""

    openai_count_streams: bool = False
    """Whether model servers that speak OpenAI's API are asked to count the tokens of streams whose callers do not ask
    for it (`stream_options.include_usage`), which these do not see. Off, as there are servers that refuse it."""

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
    eject_max_percent: Percent = 50
    """How many of the pods may be ejected at a time, in percent; one may always be. 50, because when most pods fail
    the fault is likelier elsewhere, and the few that are left would drown. Envoy's own default is 10."""
    retry_budget_percent: Percent = 20
    """How many of the requests under way may be retries, in percent. 20, as Envoy: an outage must not multiply the
    load that it falls under. Attempts that no pod accepted are not counted."""
    retry_budget_min: Annotated[int, Field(ge=0)] = 3
    """Retries that may be under way however few requests are. 3, as Envoy, or one lone request had none."""
    retry_wait_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    """How long in seconds a retry over the budget waits for another to end before its request fails. 1 outlasts the
    moment in which a pod dies with more requests in hand than the budget has places."""
    retry_backoff_s: Annotated[float, Field(ge=0, le=10)] = 0.025
    """Longest pause in seconds before a request's first retry, of which a random part is taken; before the second it
    is twice as long. 25 ms, as Envoy."""
    retry_backoff_max_s: Annotated[float, Field(ge=0, le=60)] = 0.25
    """Longest pause in seconds before any retry. 250 ms, as Envoy."""
    health_interval_s: Annotated[float, Field(ge=0.05, le=60)] = 1.0
    """Time in seconds between two looks at a pod's status, and how long one may take. 1, so that a pod that is gone is
    out of rotation within 2 s, and one that hangs, which takes two looks to tell from a busy one, within about 3 s."""

    cache_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024
    """Bytes of answers that are kept to be given again, of all models whose serving settings say `cache`; 0 keeps
    none. 64 MiB holds some 50,000 small answers and still fits a small container."""
    cache_ttl_s: Seconds = 300.0
    """How long in seconds a kept answer is given again. A version never changes, so this bounds only how long the
    answer of a model that says something else each time is repeated. Five minutes: most repetition is closer."""

    tables: Path | None = None
    """Directory of fetched tables, which lookup nodes of graphs read; gateways on one machine may share one. None by
    default: `marway-tables-UID` in the system's temporary directory, which need not outlast anything. A volume of its
    own where tables are large."""
    tables_bytes: Bytes = 4 * 1024 * 1024 * 1024
    """What that directory may hold in bytes; tables used least go first, and a larger one is refused. 4 GiB is ten
    million rows of some 400 bytes; it is disk, of which memory caches what is read."""

    max_requests_per_pod: Count = 512
    """Requests in flight on one pod, of this gateway. 512 is far above what a pod's workers are busy with, and bounds
    what a pod that answers nobody can hold; more wait here, where another pod can still take them."""
    max_requests_per_version: Count = 1024
    """Requests worked on for one version, so that no version takes the whole gateway. 1024 is two full pods."""
    queue_limit: Annotated[int, Field(ge=0)] = 1024
    """Requests that may wait for one of these limits; more are refused with 429. 1024 with 1 MiB each still fit."""
    queue_timeout_s: Seconds = 5.0
    """How long in seconds one of them waits before it is refused with 429. Behind a longer queue most callers would
    have given up by the time that their turn comes."""

    lame_duck_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    """Time in seconds after SIGTERM in which requests are still taken, while `/readyz` says no and each answer asks its
    client to connect anew. 1, as for sidecars: whoever sends requests hears of it first."""
    drain_timeout_s: Seconds = 10.0
    """Time in seconds that requests in flight get to finish after SIGTERM; 3 when the process that started the gateway
    is gone. 10 fits into the 30 s that Kubernetes gives, with room to spare."""

    access_log: bool = True
    """One JSON line a request on stdout, without payloads; health and metrics requests are left out."""
