"""What becomes of TorchServe's settings: those of a model in a version's record, those of the server elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from marway.errors import clip
from marway.serving import ServingSettings
from marway_archiver.adopt.found import Outcome, Setting
from marway_archiver.contents.model_config import ModelConfig

__all__ = ["model_settings", "server_settings", "serving_of"]

_SECRETS: Final = frozenset({"keystore_pass"})
_FRONTEND: Final = "of TorchServe's frontend alone: Marway's runtime sets what it needs"
_TLS: Final = "no part of Marway ends TLS: have an ingress or a proxy in front of the gateway do it"
_METRICS: Final = "gateways and sidecars give Prometheus' metrics on /metrics of their own ports"
_SEQUENCES: Final = "of sequences: docs/sequences.md"
_LAUNCHER: Final = "Marway starts workers itself, without a launcher"
_SERVER: Final[Mapping[str, tuple[Outcome, str]]] = {
    "inference_address": ("elsewhere", "clients ask the gateway: its settings host and port (8000)"),
    "management_address": ("elsewhere", "the gateway's admin port: its settings admin_host and admin_port (8001)"),
    "metrics_address": ("elsewhere", _METRICS),
    "grpc_inference_address": ("elsewhere", "gRPC clients ask the gateway: its settings grpc_host and grpc_port"),
    "grpc_inference_port": ("elsewhere", "gRPC clients ask the gateway: its setting grpc_port (8002)"),
    "grpc_management_address": ("elsewhere", "the gateway's admin port"),
    "grpc_management_port": ("elsewhere", "the gateway's admin port"),
    "model_store": ("kept", "its archives are versions in the registry"),
    "load_models": ("kept", "the models that it names are taken over"),
    "model_snapshot": ("kept", "its models, versions, workers and default versions are taken over"),
    "models": ("kept", "what it says of a model is that version's serving settings"),
    "workflow_store": ("kept", "its workflows are graphs in the registry"),
    "default_workers_per_model": ("kept", "workers of models that say none themselves"),
    "default_response_timeout": ("kept", "predict_timeout_s of models that say none themselves"),
    "default_startup_timeout": ("kept", "load_timeout_s of models that say none themselves"),
    "unregister_model_timeout": ("none", "an unloaded version's requests are finished first"),
    "job_queue_size": ("elsewhere", "the sidecar's setting queue_limit (256 requests), and the gateway's"),
    "max_request_size": ("elsewhere", "the gateway's setting max_body_bytes (64 MiB)"),
    "max_response_size": ("elsewhere", "the runtime's setting max_request_bytes, which holds for answers too"),
    "install_py_dep_per_model": (
        "changed",
        "requirements are locked when a version is published, and pods install these",
    ),
    "blacklist_env_vars": ("elsewhere", "the runtime's setting handler_environment names the variables handlers get"),
    "number_of_gpu": ("elsewhere", "a pod has one device: the sidecar's setting device"),
    "service_envelope": ("elsewhere", "the runtime's setting service_envelope"),
    "metrics_config": ("elsewhere", "the runtime's setting metrics_config"),
    "vmargs": ("elsewhere", "the runtime's setting java_options"),
    "cors_allowed_origin": ("elsewhere", "the gateway's setting cors_origins"),
    "cors_allowed_methods": ("none", "cors_origins allows what the gateway's routes take"),
    "cors_allowed_headers": ("none", "cors_origins allows what the gateway's routes take"),
    "disable_token_authorization": ("elsewhere", "the gateway's settings predict_tokens_file and admin_tokens_file"),
    "token_expiration_min": ("none", "tokens of predict_tokens_file hold until they are taken out"),
    "enable_model_api": ("elsewhere", "the gateway's admin port"),
    "allowed_urls": ("none", "pods load archives of the registry and of nowhere else"),
    "use_env_allowed_urls": ("none", "pods load archives of the registry and of nowhere else"),
    "enable_envvars_config": (
        "none",
        "variables TS_… of the old server, which beat this file if it is true, cannot be seen here: compare",
    ),
    "default_service_handler": ("none", "an archive names its handler"),
    "decode_input_request": ("none", "handlers are given JSON parsed, and text as text"),
    "enable_metrics_api": ("elsewhere", _METRICS),
    "metrics_format": ("kept", "Prometheus' format"),
    "metrics_mode": ("elsewhere", _METRICS),
    "model_metrics_auto_detect": ("elsewhere", "metrics of handlers: the runtime's setting metrics_config"),
    "metric_time_interval": ("elsewhere", _METRICS),
    "disable_system_metrics": ("elsewhere", _METRICS),
    "system_metrics_cmd": ("none", _METRICS),
    "ts_open_inference_protocol": ("kept", "the gateway speaks the Open Inference Protocol for every model"),
    "limit_max_image_pixels": ("none", "Pillow's own limit holds in handlers"),
    "snapshot_store": ("none", "what is served stands in the registry, with its history"),
    "python": ("elsewhere", "the Python that the runtime is installed for"),
    **dict.fromkeys(("ts_header_key_sequence_id", "ts_header_key_sequence_start"), ("elsewhere", _SEQUENCES)),
    "ts_header_key_sequence_end": ("elsewhere", _SEQUENCES),
    **dict.fromkeys(
        ("keystore", "keystore_pass", "keystore_type", "private_key_file", "certificate_file", "enable_grpc_ssl"),
        ("elsewhere", _TLS),
    ),
    **dict.fromkeys(
        ("cpu_launcher_enable", "cpu_launcher_args", "ipex_enable", "ipex_gpu_enable"), ("none", _LAUNCHER)
    ),
    **dict.fromkeys(
        (
            "number_of_netty_threads", "netty_client_threads", "use_native_io", "io_ratio", "prefer_direct_buffer",
            "async_logging", "initial_worker_port", "initial_distribution_port", "cpp_log_config", "debug",
            "model_server_home", "grpc_inference_max_connection_age_ms", "grpc_management_max_connection_age_ms",
            "grpc_inference_max_connection_age_grace_ms", "grpc_management_max_connection_age_grace_ms",
        ),
        ("none", _FRONTEND),
    ),
}  # fmt: skip
_WRITTEN: Final = frozenset({"version", "tsConfigFile"})
"""What TorchServe adds to a snapshot of its own accord."""


def server_settings(declared: Mapping[str, str]) -> tuple[Setting, ...]:
    """Return what becomes of each setting of a server's configuration."""
    found: list[Setting] = []
    for key, value in sorted(declared.items()):
        if key in _WRITTEN:
            continue
        unknown: tuple[Outcome, str] = ("none", "TorchServe 0.12 has no such setting, and passes over it as well")
        outcome, becomes = _SERVER.get(key, unknown)
        shown = "(hidden)" if key in _SECRETS else clip(" ".join(value.split()), 100)
        found.append(Setting(key, shown, outcome, becomes))
    return tuple(found)


def model_settings(
    values: Mapping[str, Any], declared: Mapping[str, str], config: ModelConfig | None, *, label_hint: bool | None
) -> Iterator[Setting]:
    """Yield what becomes of each setting of one model."""
    serving = serving_of(values, declared, config)
    for key, value in values.items():
        if key == "marName":
            continue
        yield Setting(key, clip(str(value), 100), *_of_model(key, value, serving, config, default=label_hint))


def _of_model(
    key: str, value: Any, serving: ServingSettings, config: ModelConfig | None, *, default: bool | None
) -> tuple[Outcome, str]:
    in_archive = "the archive's own configuration says another, which beats it, here and there"
    match key:
        case "minWorkers":
            own = config is not None and config.min_workers is not None and config.min_workers != value
            return ("changed", in_archive) if own else ("kept", f"min_workers {serving.min_workers}")
        case "maxWorkers":
            own = config is not None and config.max_workers is not None and config.max_workers != value
            if own:
                return "changed", in_archive
            if serving.max_workers is None:
                return "changed", "one worker for each CPU of the pod: with none at all nothing would be served"
            return "kept", f"max_workers {serving.max_workers}"
        case "batchSize":
            if value == 1:
                return "kept", "max_batch_rows 1"
            return (
                "changed",
                f"max_batch_rows {serving.max_batch_rows}, once golden examples prove batches",
            )
        case "maxBatchDelay":
            return "none", "Marway batches what waits anyway, and lets no request wait for others"
        case "responseTimeout":
            return "kept", f"predict_timeout_s {serving.predict_timeout_s:g}"
        case "startupTimeout":
            return "kept", f"load_timeout_s {serving.load_timeout_s:g}"
        case "defaultVersion":
            return "kept", "the label points at it" if default else "reached by its version, as before"
        case "runtimeType":
            return "kept", "it stands in the archive's manifest"
        case "parallelLevel":
            return ("kept", "one process") if value in (0, 1) else ("none", "Marway does not start torchrun")
        case _:
            return "none", "TorchServe 0.12 has no such setting of a model, and passes over it as well"


def serving_of(values: Mapping[str, Any], declared: Mapping[str, str], config: ModelConfig | None) -> ServingSettings:
    """Return the serving settings that stand for what is said of a model; what the archive itself says goes before."""
    own = config or ModelConfig()
    workers = _number(declared.get("default_workers_per_model"))
    low = own.min_workers or _first(_number(values.get("minWorkers")), workers)
    high = own.max_workers or _first(_number(values.get("maxWorkers")), workers)
    given: dict[str, Any] = {}
    if low is not None:
        given["min_workers"] = low
    if high:
        given["max_workers"] = max(high, low or 1)
    batch = own.batch_size or _number(values.get("batchSize"))
    if batch:
        given["max_batch_rows"] = batch
    for field, key, default in (
        ("predict_timeout_s", "responseTimeout", "default_response_timeout"),
        ("load_timeout_s", "startupTimeout", "default_startup_timeout"),
    ):
        seconds = _first(_number(values.get(key)), _number(declared.get(default)))
        if config is not None:
            seconds = own.response_timeout_s if key == "responseTimeout" else own.startup_timeout_s
        if seconds:
            given[field] = float(seconds)
    return ServingSettings(**given)


def _first(*numbers: int | None) -> int | None:
    return next((each for each in numbers if each is not None), None)


def _number(value: Any) -> int | None:
    """Return a whole number that is not negative and not beyond reason, or None, as TorchServe then has its default."""
    try:
        number = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number <= 1_000_000 else None
