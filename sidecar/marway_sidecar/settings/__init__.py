"""Settings of the sidecar: those of each backend are a module here, under names that begin with the backend's."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from marway_http.hosts import parse_hosts
from marway_sidecar.settings.grpc_predictor import GrpcPredictorSettings
from marway_sidecar.settings.http_server import HttpServerSettings
from marway_sidecar.settings.mms import MmsSettings
from marway_sidecar.settings.open_inference import OpenInferenceSettings
from marway_sidecar.settings.tensorflow_serving import TensorFlowServingSettings
from marway_sidecar.settings.torchserve import TorchServeSettings
from marway_sidecar.settings.traces import TraceSettings

__all__ = ["SidecarSettings"]

_MIB = 1024 * 1024


class SidecarSettings(
    TorchServeSettings,
    MmsSettings,
    TensorFlowServingSettings,
    HttpServerSettings,
    GrpcPredictorSettings,
    OpenInferenceSettings,
    TraceSettings,
):
    """How the sidecar runs. Environment variables begin with `MARWAY_SIDECAR_`."""

    model_config = SettingsConfigDict(env_prefix="MARWAY_SIDECAR_")

    registry: str = "file:///var/lib/marway/registry"
    """Registry URL. `MARWAY_REGISTRY` sets it for all components."""

    backend: str = "torchserve"
    """The kind of model server of this pod: the name of an entry point of the group `marway.backends`. Marway brings
    `torchserve`, `native`, `http`, `grpc-predictor` and `open-inference`; other packages may bring more."""

    runtime_dir: Path = Path("/run/marway")
    """Directory shared with the runtime, which says there where TorchServe answers. In a pod it is an emptyDir."""

    archive_store: Path = Path("/var/lib/marway/store")
    """Directory of fetched archives; TorchServe reads it. Pods may share one: then each archive is fetched once."""

    archive_store_bytes: int | None = Field(None, ge=1)
    """Most that the store may hold, bytes; the least recently used archive that no pod uses goes first. No default:
    until the volume is `archive_store_free_bytes` short. TorchServe unpacks each loaded archive again, into its own
    temporary directory: that room is not counted here."""

    archive_store_free_bytes: int = Field(256 * _MIB, ge=0)
    """What fetching leaves free on the store's volume, bytes: for logs and whatever else grows on it."""

    archive_quarantine_bytes: int = Field(1024 * _MIB, ge=0)
    """How much of what is corrupt is kept to be looked at, bytes, of 8 archives at most; it goes first for room."""

    archive_stuck_s: float = Field(30.0, gt=0)
    """When a pod takes over a download that shows no progress, seconds: longer than a registry takes to send one byte
    and a disk to sync 64 MiB. The one that was taken for stopped cannot do harm when it goes on."""

    archive_streams: int = Field(4, ge=1)
    """Connections for one archive of 64 MiB or more from S3, which gives each so much; a directory is read by one."""

    archive_threads: int = Field(4, ge=1)
    """Threads for fetching and checking archives, apart from those for look-ups: more versions wait their turn."""

    name: str = Field(default_factory=socket.gethostname)
    """Name of this pod in answers and on the admin plane; the host name, which in a pod is the pod's name."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback; in a pod 0.0.0.0, behind a NetworkPolicy that lets only gateways in."""

    port: int = Field(9000, ge=0, le=65535)
    """Port to listen on."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_hosts)] = ()
    """Names that requests may have in `Host`, and pages of which may ask: in a list or with commas between them, also
    `*.example.com` for all below a name, and `*` for any. None by default: IP addresses, `localhost`, names without a
    dot, the host's own name and those within Kubernetes always may. Needed where gateways call a pod otherwise."""

    pool: str | None = None
    """Pool this pod belongs to; a version that asks for a pool is placed only there."""

    device: str = "cpu"
    """What models run on here, as the pod says it to gateways: cpu or cuda."""

    max_body_bytes: int = Field(64 * _MIB, ge=1)
    """Largest predict body, bytes. Equal to the gateway's, which refuses first."""

    body_memory_bytes: int = Field(256 * _MIB, ge=1)
    """Bytes of bodies over 64 KiB that are held at once; what comes beyond waits unread. Four of the largest: a worker
    takes one at a time, and a call needs up to twice its body's size besides. Never less than `max_body_bytes`."""

    body_timeout_s: float = Field(10.0, gt=0, le=600)
    """Time in which a client must send a request's body, which each `body_min_rate` bytes of it prolong by a second,
    seconds; time in which it is not read is not counted. Twice a gateway's 5, which so ends its own slow clients."""

    body_min_rate: int = Field(1024, ge=1)
    """Bytes a second at which a body must come after that, as at a gateway. 1 KiB/s is slower than any network."""

    default_timeout_s: float = Field(60.0, gt=0)
    """Deadline of a request that brings none, seconds. A gateway always sends what is left of its own."""

    max_timeout_s: float = Field(3600.0, gt=0)
    """Longest deadline, seconds; a longer one is cut to it, so that no request is held for ever."""

    load_failure_backoff_s: float = Field(2.0, gt=0)
    """How long a version that failed to load is not tried again, seconds; doubles each time, up to 300."""

    forget_s: float = Field(600.0, gt=0)
    """How long a version that is not loaded is shown after anybody last wanted it, with the reason if it failed,
    seconds. Long enough for somebody to look, short enough that thousands of versions leave no trace."""

    fetch_timeout_s: float = Field(600.0, gt=0)
    """How long requests wait for an archive to be fetched before they are told to come back, seconds. The fetch goes
    on: 10 GiB take 100 s at 100 MiB/s."""

    expected_load_s: float = Field(1.0, gt=0)
    """How long a load is taken to last until one was measured, seconds: a request whose deadline is shorter is told
    at once. TorchServe's own way of starting a worker takes about 1."""

    memory_budget_bytes: int | None = Field(None, gt=0)
    """Memory that the workers of all versions may take together, bytes. Unset: the runtime's memory limit, less what
    the rest of the runtime takes (measured), less `memory_reserve_bytes`."""

    memory_reserve_bytes: int = Field(256 * _MIB, ge=0)
    """Memory left alone below the runtime's limit, bytes: for what Java's heap and workers grow between two looks."""

    memory_wait_s: float = Field(20.0, gt=0)
    """How long a load waits in which no memory comes free at all, seconds; then it is refused and
    another pod may take the request. Most requests end sooner."""

    memory_wait_max_s: float = Field(60.0, gt=0)
    """How long a load waits for memory at all, seconds, its turn included: as long as a request without a deadline."""

    worker_base_bytes: int = Field(160 * _MIB, ge=0)
    """Memory of a worker beside its model, bytes, until one was measured: what TorchServe's own workers take (147 MiB
    measured), as too large a guess only makes the first loads take turns. Forked ones take about 10 MiB."""

    archive_memory_factor: float = Field(1.5, gt=0)
    """Memory of a version that was never loaded, as a multiple of its archive: weights that are in a `.mar` nearly as
    they will be in memory, and a copy of the largest while they are read."""

    survey_interval_s: float = Field(10.0, gt=0)
    """How often the model server is asked what it has and what its workers take when nothing changed, seconds. After
    each load it is asked at once."""

    queue_limit: int = Field(256, ge=1)
    """Requests that may wait for one version, its load included; more are told to come back (429). Below
    TorchServe's own queue (`job_queue_size`), which drops what it cannot take."""

    cpus: int | None = Field(None, ge=1)
    """CPUs that the model server has, for versions that do not say how many workers they may have at most. Unset
    means what the runtime says of its container; of a server that no runtime of ours started, those of this process."""

    scale_up_wait_s: float = Field(0.05, gt=0)
    """How long the first request in a version's queue waits before another worker is started, seconds: longer than
    a forked worker takes to start costs more than it gains."""

    scale_down_s: float = Field(60.0, gt=0)
    """How long a worker must have been of no use before it is stopped, seconds; and how long a version must have been
    unused to go for another version's second worker. Starting one again costs more than keeping it a minute."""

    scale_to_zero_s: float = Field(300.0, gt=0)
    """How long a version that allows it (`min_workers` 0) must be unused before its last worker is stopped, seconds.
    It stays registered (40 KiB); the next request waits for a worker's start."""

    breaker_failures: int = Field(5, ge=1)
    """So many calls of a version in a row that die or hang open its breaker. Envoy's number for ejecting a host."""

    breaker_open_s: float = Field(5.0, gt=0)
    """How long callers of such a version are then told at once to come back, seconds, before one call tries again.
    TorchServe starts a dead worker again within 1 to 3."""

    state_ttl_s: float = Field(2.0, gt=0, le=2.0)
    """How old a label may be when a caller names one here, seconds. 2 is what Marway promises at most."""

    negative_ttl_s: float = Field(1.0, ge=0)
    """How long "there is no such model" is remembered, seconds: a stream of wrong requests makes few look-ups."""

    registry_timeout_s: float = Field(2.0, gt=0)
    """How long a request waits for the registry before the last known labels serve, seconds."""

    registry_threads: int = Field(4, ge=1)
    """Threads for registry look-ups, so that a slow store never holds up the rest."""

    lame_duck_s: float = Field(1.0, ge=0)
    """How long a pod that drains still takes requests, seconds: gateways hear within 0.2, load balancers later."""

    drain_timeout_s: float = Field(10.0, gt=0)
    """How long requests in flight may take to finish once others are refused, seconds."""

    golden_warm_examples: int = Field(8, ge=0)
    """Golden inputs sent through a version after its load and before its first request, a number; 0 sends none."""

    golden_warm_s: float = Field(1.0, gt=0)
    """No further golden input is sent after so long, seconds: callers wait for the load meanwhile."""

    tombstone_check_s: float = Field(30.0, gt=0)
    """How often a loaded version is checked for having been deleted, seconds. Requests for it are refused sooner."""

    runtime_poll_s: float = Field(0.05, gt=0)
    """How often the runtime directory is looked at, seconds: that soon a restarted TorchServe is noticed."""

    runtime_probe_interval_s: float = Field(1.0, gt=0)
    """How often TorchServe is asked whether it answers, seconds, beside what the runtime says: a runtime that hangs
    says that all is well."""

    runtime_probe_timeout_s: float = Field(3.0, gt=0)
    """How long it may take to answer before the pod is not ready, seconds: a little longer than the runtime's own look
    takes, which goes first where it works."""
