"""Settings of the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from marway.settings import ComponentSettings

__all__ = ["RuntimeSettings"]

_MIB = 1024 * 1024


class RuntimeSettings(ComponentSettings):
    """How TorchServe is started. Environment variables begin with `MARWAY_RUNTIME_`."""

    model_config = SettingsConfigDict(env_prefix="MARWAY_RUNTIME_")

    engine: Literal["torchserve", "native"] = "torchserve"
    """What serves models: TorchServe, or workers of Marway's own without Java, which load the same archives. The
    sidecar's `backend` has to be the same. TorchServe, because handlers were written for it."""

    runtime_dir: Path = Path("/run/marway")
    """Directory shared with the sidecar: `runtime.json`, `runtime.sock` and `logs/`. In a pod it is an emptyDir."""

    model_store: Path = Path("/var/lib/marway/store")
    """Directory of archives, written by the sidecar and only read by TorchServe."""

    host: str = "127.0.0.1"
    """Address TorchServe binds to. Loopback, because its management API runs code and asks nobody."""

    inference_port: int = Field(0, ge=0, le=65535)
    """REST inference port; 0 takes a free one, so that several runtimes share a machine."""

    management_port: int = Field(0, ge=0, le=65535)
    """REST management port; 0 takes a free one."""

    metrics_port: int = Field(0, ge=0, le=65535)
    """Prometheus metrics port of TorchServe; 0 takes a free one."""

    grpc_inference_port: int = Field(0, ge=0, le=65535)
    """gRPC inference port; 0 takes a free one."""

    grpc_management_port: int = Field(0, ge=0, le=65535)
    """gRPC management port; 0 takes a free one."""

    max_request_bytes: int = Field(96 * _MIB, ge=_MIB)
    """Largest request and response of TorchServe, bytes. The gateway's 64 MiB and room for the envelope: one byte over
    it kills a worker, so the smaller limits in front must always bite first."""

    heap_bytes: int | None = Field(None, ge=64 * _MIB)
    """Java heap limit, bytes; unset takes an eighth of the memory there is, between 256 MiB and 1 GiB."""

    java_options: tuple[str, ...] = ()
    """More options of Java, each as Java takes it (`-XX:+UseSerialGC`); they win over those that Marway gives. None are
    needed: collectors and compiler settings were measured to make no difference."""

    share_classes: bool = True
    """Whether Java starts from an archive of its parsed classes, in half the time. Where there is none yet it is
    written in the background, once TorchServe answers: 3 s of one processor and 220 MiB, once."""

    class_archives: Path | None = None
    """Directory of that archive, 45 MiB; runtimes may share it. Java runs what it says, so nobody else may write to
    it. Unset: `java` in the runtime directory. Where it is read-only, an archive in it is used and none is written."""

    memory_limit_bytes: int | None = Field(None, ge=256 * _MIB)
    """Memory that TorchServe and its workers may take, bytes; unset reads the cgroup, else the machine."""

    worker_memory_bytes: int | None = Field(None, ge=256 * _MIB)
    """Memory of its own that one worker may take, bytes, with what it shares with others since its fork; with more
    it is killed. Unset: nine tenths of `memory_limit_bytes`, so that a greedy one goes before the kernel ends the
    pod."""

    job_queue_size: int = Field(1000, ge=1)
    """Requests TorchServe queues for one model. The sidecar's own limit bites first; this is the last resort."""

    environments: Path | None = None
    """Directory of environments: what versions require and this Python does not have, installed once for all workers.
    This runtime's alone. Unset: `environments` in the runtime directory."""

    environments_bytes: int = Field(4 * 1024 * _MIB, ge=_MIB)
    """What environments may take on the disk, bytes. The one that was used least recently goes first, and none that a
    loaded version is in."""

    environment_timeout_s: float = Field(300.0, gt=0, le=1500)
    """How long the installation of an environment may take, seconds. Wheels are there by then, and nothing is built."""

    install_requirements: Literal[False] = False
    """Gone, and refused when it is true: no pod runs pip. `marway publish` locks what an archive requires, and a pod
    installs these wheels."""

    handler_environment: tuple[str, ...] = ()
    """Names of environment variables that handlers see besides those that computing needs (`PATH`, `LANG`,
    `CUDA_*`, `OMP_*`, …). None: every model of the pod sees them, so a secret here is every model's."""

    metrics_config: Path | None = None
    """TorchServe's `metrics_config`: a YAML file that names metrics that handlers ask for by `get_metric`. Unset:
    TorchServe's own. An archive's own `metrics.yaml` adds to it, and goes wherever the archive does."""

    service_envelope: Literal["body", "json", "kserve", "kservev2"] | None = None
    """TorchServe's `service_envelope`: has every handler of this pod wrapped in one of TorchServe's request envelopes.
    Unset: none; a handler sees what the caller sent."""

    fork_workers: bool = True
    """Whether workers are forked from a process that has torch imported: they start several times sooner and share its
    memory. Off, or where there is no Linux, each starts as a Python of its own."""

    share_weights_from_bytes: int | None = Field(32 * _MIB, ge=0)
    """From which size of an unpacked archive on the engine `native` loads it once and forks its workers from that,
    bytes. Only versions that have golden answers and may have more than one worker. Below it the process that is
    forked from costs more than it saves. None: every worker loads by itself; TorchServe's always do."""

    preload: tuple[str, ...] = ("PIL.Image",)
    """Modules that the fork server imports besides torch and numpy, for handlers that need them; one that is not
    installed is passed over. A module that starts threads or touches CUDA when it is imported must not be here."""

    start_timeout_s: float = Field(120.0, gt=0)
    """How long TorchServe may take to answer after its start, seconds. It takes 1 to 5; slow machines get room."""

    stop_timeout_s: float = Field(5.0, gt=0)
    """How long TorchServe may take to stop before it is killed, seconds. The sidecar has drained it by then."""

    restart_backoff_s: float = Field(0.5, gt=0)
    """Wait before TorchServe, or the fork server, is started again after it died, seconds; doubles with each death, up
    to 30."""

    probe_interval_s: float = Field(0.5, gt=0)
    """Pause between two looks whether TorchServe answers, seconds. A look costs it a tenth of a millisecond."""

    probe_timeout_s: float = Field(2.0, gt=0)
    """How long one look waits for an answer, seconds; after that `runtime.json` is taken away, so that the sidecar
    stops routing to it. A busy machine gets that much grace; with the pause it makes 2.5 s at most."""

    frozen_timeout_s: float = Field(10.0, gt=0)
    """How long TorchServe may go without an answer before it is killed and started again, seconds. Starting costs
    every loaded model, so a machine that only stalls is waited for."""

    @field_validator("install_requirements", mode="before")
    @classmethod
    def _no_pip(cls, value: object) -> object:
        if str(value).lower() in ("1", "true", "t", "yes", "y", "on"):
            raise ValueError(
                "pods run no pip any more: publish the version again as a new one, which locks its requirements, and "
                "take this setting away"
            )
        return False
