"""What the programs themselves make of the manifests: their own settings and command lines read what containers get."""

from __future__ import annotations

import argparse
import functools
import ipaddress
import math
import os
import shlex
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from marway.errors import MarwayError
from marway.settings import OBSERVATIONS_ENV, REGISTRY_ENV, ComponentSettings, load_settings
from marway_gateway.settings import GatewaySettings
from marway_ops.cli.main import build_app
from marway_runtime.settings import RuntimeSettings
from marway_sidecar.settings import SidecarSettings
from support.kubernetes.objects import (
    MODEL_SERVERS,
    OPEN_INFERENCE_SERVERS,
    Container,
    container,
    containers,
    environment,
    name_of,
    named,
    named_namespace,
    of_kind,
    quantity,
    volumes,
)
from support.kubernetes.render import Document

SETTINGS: dict[str, type[ComponentSettings]] = {
    "gateway": GatewaySettings,
    "runtime": RuntimeSettings,
    "sidecar": SidecarSettings,
}
_SHARED = {OBSERVATIONS_ENV, REGISTRY_ENV}
_SOCKET = "/marway-ts-12345678/t/.ts.sock.65535"
"""What follows the temporary directory in the path of a worker's socket."""


def command_line(arguments: list[str]) -> dict[str, Any]:
    """Return the options that `marway` finds in a container's arguments.

    Raises:
        TyperException: It does not understand them.
        LookupError: There is no such verb.
    """
    group = _marway()
    context = group.make_context("marway", list(arguments))
    verb = group.get_command(context, arguments[0])
    if verb is None:
        raise LookupError(f"no verb {arguments[0]}")
    return verb.make_context(arguments[0], arguments[1:], parent=context).params


@functools.cache
def _marway() -> TyperGroup:
    group = typer.main.get_command(build_app())
    assert isinstance(group, TyperGroup)
    return group


def settings_of(documents: list[Document], name: str) -> Any:
    """Return the settings that a component finds in its container.

    Raises:
        MarwayError: It would refuse them.
    """
    found = container(documents, name)
    flags = {
        key: value for key, value in command_line(found.spec["args"]).items() if key in SETTINGS[name].model_fields
    }
    with mock.patch.dict(os.environ, environment(documents, found), clear=True):
        return load_settings(SETTINGS[name], **flags)


def is_understood(documents: list[Document]) -> Iterator[str]:
    """Each variable is a setting of the program that gets it, with a value that it takes; so is each argument."""
    for each in containers(documents):
        kind = SETTINGS.get(each.name)
        if kind is None:
            if each.spec["image"].rpartition("/")[2].startswith("marway-"):
                yield from _is_a_command(documents, each)
            continue
        known = {f"MARWAY_{each.name.upper()}_{field.upper()}" for field in kind.model_fields} | _SHARED
        given = {name for name in environment(documents, each) if name.startswith("MARWAY_")}
        yield from (f"{each}: {name} is no setting of it" for name in sorted(given - known))
        twice = [variable["name"] for variable in each.spec.get("env", [])]
        yield from (
            f"{each}: {name} is given twice" for name in sorted({name for name in twice if twice.count(name) > 1})
        )
        if each.spec.get("command") or each.spec.get("args", [""])[0] != each.name:
            yield f"{each}: runs {each.spec.get('command')} {each.spec.get('args')}"
            continue
        try:
            settings_of(documents, each.name)
        except (MarwayError, TyperException) as exc:
            yield f"{each}: {exc}"


def _is_a_command(documents: list[Document], each: Container) -> Iterator[str]:
    """A container that runs another verb of `marway` than a server's."""
    given = {name for name in environment(documents, each) if name.startswith("MARWAY_")}
    yield from (f"{each}: {name} is no setting of it" for name in sorted(given - _SHARED))
    if each.spec.get("command") or each.spec.get("args", [""])[0] != each.name:
        yield f"{each}: runs {each.spec.get('command')} {each.spec.get('args')}"
        return
    try:
        command_line(each.spec["args"])
    except (LookupError, TyperException) as exc:
        yield f"{each}: {exc}"


def listens_where_it_is_sought(documents: list[Document]) -> Iterator[str]:
    """Ports are those that containers declare, open to the pod's network; a model server's are not."""
    gateway, sidecar = settings_of(documents, "gateway"), settings_of(documents, "sidecar")
    found = {
        "gateway": {"http": gateway.port, "admin": gateway.admin_port, "grpc": gateway.grpc_port},
        "sidecar": {"http": sidecar.port},
    }
    for name, ports in found.items():
        declared = {port["name"]: port["containerPort"] for port in container(documents, name).spec["ports"]}
        if declared != ports:
            yield f"{name}: declares {declared}, listens on {ports}"
    for name, host in (
        ("gateway", gateway.host),
        ("gateway's admin port", gateway.admin_host),
        ("gateway's gRPC port", gateway.grpc_host),
        ("sidecar", sidecar.host),
    ):
        if host != "0.0.0.0":
            yield f"{name}: listens on {host}"
    if gateway.admin_tokens_file is None:
        yield "gateway: the admin port is open to everybody"
    for service in gateway.pods:
        where = urlsplit(str(service))
        name, _, rest = str(where.hostname).partition(".")
        headless = [each for each in of_kind(documents, "Service") if each["spec"].get("clusterIP") == "None"]
        if name not in [name_of(each) for each in headless]:
            yield f"gateway: {service} is no headless Service"
        if rest not in ("", f"{named_namespace(documents)}.svc", named_namespace(documents)):
            yield f"gateway: {service} is in another namespace"
        if where.port != sidecar.port:
            yield f"gateway: {service}, and sidecars listen on {sidecar.port}"
    for each in containers(documents):
        if each.name in MODEL_SERVERS and each.spec.get("ports"):
            yield f"{each}: declares ports, and listens on loopback"
        if each.name == "runtime" and not _is_loopback(settings_of(documents, "runtime").host):
            yield f"{each}: TorchServe listens on {settings_of(documents, 'runtime').host}"


def has_time_to_drain(documents: list[Document]) -> Iterator[str]:
    """Kubernetes waits longer than the programs need to stop, and they wait as long as requests may take."""
    gateway, sidecar = settings_of(documents, "gateway"), settings_of(documents, "sidecar")
    last_s = RuntimeSettings.model_fields["stop_timeout_s"].default
    for name, settings, after_s in (("gateway", gateway, 0.0), ("sidecar", sidecar, last_s)):
        pod = container(documents, name).pod
        wanted_s = settings.lame_duck_s + settings.drain_timeout_s + 2 + after_s
        if pod.get("terminationGracePeriodSeconds", 30) < wanted_s:
            yield f"{name}: is killed before the {wanted_s:g} s that it may take to stop"
        if settings.drain_timeout_s < gateway.default_timeout_s:
            yield f"{name}: cuts requests that may take {gateway.default_timeout_s:g} s"
        if "preStop" in container(documents, name).spec.get("lifecycle", {}):
            yield f"{name}: a preStop hook delays the lame duck"
    if gateway.lame_duck_s < 5:
        yield "gateway: closes its ports before load balancers know"
    for each in containers(documents):
        probe = each.spec.get("livenessProbe")
        if probe is None:
            continue  # a job
        if probe.get("terminationGracePeriodSeconds", math.inf) > each.pod["terminationGracePeriodSeconds"]:
            yield f"{each}: one that hangs gets longer than one that drains"


def agrees_on_its_engine(documents: list[Document]) -> Iterator[str]:
    """The sidecar speaks to the engine that the runtime starts, and the image without Java runs the one without."""
    for each in (each for each in containers(documents) if each.name == "runtime"):
        engine, backend = settings_of(documents, "runtime").engine, settings_of(documents, "sidecar").backend
        if engine != backend:
            yield f"{each}: starts {engine}, and its sidecar looks for {backend}"
        image = each.spec["image"].rpartition("/")[2].partition(":")[0]
        if image != ("marway-runtime-native" if engine == "native" else "marway-runtime"):
            yield f"{each}: the engine {engine} runs from {image}"


def shares_directories(documents: list[Document]) -> Iterator[str]:
    """Sidecar and model server share the store, which the latter reads, and have temporary directories of their own."""
    sidecar, settings = container(documents, "sidecar"), settings_of(documents, "sidecar")
    (server,) = (each for each in containers(documents) if each.name in MODEL_SERVERS)
    shared = str(settings.archive_store)
    if server.name in OPEN_INFERENCE_SERVERS:
        if _mount_at(server, shared) is not None:
            yield f"{server}: sees archives, of which it reads none"
        shared = str(settings.open_inference_repository)
    mine, its = _mount_at(sidecar, shared), _mount_at(server, shared)
    if mine is None or its is None or mine["name"] != its["name"]:
        yield f"{server}: does not see what the sidecar gives it at {shared}"
    elif not its.get("readOnly") or mine.get("readOnly"):
        yield f"{shared} is the sidecar's to write, and the model server's to read"
    if server.name == "runtime":
        runtime = settings_of(documents, "runtime")
        if runtime.model_store != settings.archive_store or runtime.runtime_dir != settings.runtime_dir:
            yield "sidecar and runtime are told of different directories"
        mounts = [_mount_at(each, str(settings.runtime_dir)) for each in (sidecar, server)]
        if None in mounts or len({mount["name"] for mount in mounts if mount}) != 1:
            yield "the runtime directory is not one volume"
    temporary = environment(documents, server).get("TMPDIR", "/tmp")
    if len(temporary + _SOCKET) > 107:
        yield f"{server}: the temporary directory's path is too long for sockets"
    tmp = [_mount_at(each, "/tmp") for each in (sidecar, server)]
    if None in tmp or len({mount["name"] for mount in tmp if mount}) != 2:
        yield "sidecar and model server have no temporary directory each"
    for each in containers(documents):
        for mount in each.mounts.values():
            kinds = volumes(each.pod)[mount["name"]].keys() & {"secret", "configMap", "projected"}
            if kinds and not mount.get("readOnly"):
                yield f"{each}: {mount['mountPath']} is not mounted read-only"


def has_room_for_archives(documents: list[Document]) -> Iterator[str]:
    """The archive store stays within its volume, beyond which the kubelet would evict the pod."""
    sidecar, settings = container(documents, "sidecar"), settings_of(documents, "sidecar")
    mount = _mount_at(sidecar, str(settings.archive_store))
    if mount is None:
        yield "the archive store is no volume"
        return
    volume = sidecar.volumes[mount["name"]]
    if "emptyDir" in volume:
        size = quantity(volume["emptyDir"]["sizeLimit"])
    else:
        claim = named(documents, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
        size = quantity(claim["spec"]["resources"]["requests"]["storage"])
        if claim["spec"]["accessModes"] != ["ReadWriteMany"]:
            yield "pods of several nodes cannot share the archive store"
    if settings.archive_store_bytes is None or settings.archive_store_bytes > size * 95 / 100:
        yield f"the archive store may take {settings.archive_store_bytes} of {size} bytes"


def reaches_its_registry(documents: list[Document]) -> Iterator[str]:
    """Gateway and sidecar use one registry; one in a directory is mounted: the gateway writes, the sidecar reads."""
    urls = {name: settings_of(documents, name).registry for name in ("gateway", "sidecar")}
    if len(set(urls.values())) != 1:
        yield f"gateway and sidecar use different registries: {urls}"
    url = urlsplit(urls["gateway"])
    for each in (each for each in containers(documents) if each.name in (*urls, "gc")):
        if url.scheme == "file":
            mount = _mount_at(each, url.path)
            if mount is None or bool(mount.get("readOnly")) != (each.name == "sidecar"):
                yield f"{each}: the registry's directory is {mount}"
        elif not environment(documents, each).keys() & {"AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"}:
            yield f"{each}: has nothing to show to the store"
        for variable in (
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "MARWAY_GATEWAY_ADMIN_TOKENS_FILE",
        ):
            file = environment(documents, each).get(variable)
            if file is not None and _mount_at(each, file.rpartition("/")[0]) is None:
                yield f"{each}: {variable} names {file}, where nothing is mounted"


def agrees_with_its_torchserve(documents: list[Document]) -> Iterator[str]:
    """A TorchServe that Marway does not start is told the same as its sidecar: addresses, sizes, directories."""
    servers = [each for each in containers(documents) if each.name == "torchserve"]
    for server in servers:
        sidecar = settings_of(documents, "sidecar")
        if server.spec.get("command") != ["torchserve"]:
            yield f"{server}: runs {server.spec.get('command')}"
        try:
            said = vars(_torchserve_parser().parse_args(server.spec["args"]))
        except SystemExit:
            yield f"{server}: TorchServe does not understand {shlex.join(server.spec['args'])}"
            continue
        if not (said["start"] and said["foreground"] and said["model_store"] == str(sidecar.archive_store)):
            yield f"{server}: {said}"
        mount, _, file = str(said["ts_config"]).rpartition("/")
        at = _mount_at(server, mount)
        config = named(documents, "ConfigMap", server.volumes[at["name"]]["configMap"]["name"]) if at else {"data": {}}
        lines = [
            line.partition("=") for line in config["data"].get(file, "").splitlines() if "=" in line and line[0] != "#"
        ]
        has = {name.strip(): value.strip() for name, _, value in lines}
        grpc = {
            kind: f"{has.get(f'grpc_{kind}_address')}:{has.get(f'grpc_{kind}_port')}"
            for kind in ("inference", "management")
        }
        for name, is_at, sought in (
            ("inference", has.get("inference_address"), sidecar.torchserve_inference),
            ("management", has.get("management_address"), sidecar.torchserve_management),
            ("gRPC inference", grpc["inference"], sidecar.torchserve_grpc_inference),
            ("gRPC management", grpc["management"], sidecar.torchserve_grpc_management),
        ):
            host = str(is_at).removeprefix("http://").rpartition(":")[0]
            if is_at != sought or not _is_loopback(host):
                yield f"{server}: {name} is at {is_at}, sought at {sought}"
        if has.get("max_request_size") != str(sidecar.torchserve_max_request_bytes):
            yield f"{server}: max_request_size is {has.get('max_request_size')}"
        if has.get("enable_model_api") != "true" or has.get("disable_token_authorization") != "true":
            yield f"{server}: the sidecar cannot register models"
        limits = server.spec["resources"]["limits"]
        if not sidecar.memory_budget_bytes or sidecar.memory_budget_bytes >= quantity(limits["memory"]):
            yield f"{server}: models may take more memory than there is"
        if sidecar.cpus != math.ceil(quantity(limits["cpu"])):
            yield f"{server}: has {limits['cpu']} CPUs, the sidecar is told {sidecar.cpus}"


def agrees_with_its_open_inference_server(documents: list[Document]) -> Iterator[str]:
    """A Triton or an MLServer is told the same as its sidecar: addresses on loopback, repository, memory, CPUs."""
    for server in (each for each in containers(documents) if each.name in OPEN_INFERENCE_SERVERS):
        sidecar = settings_of(documents, "sidecar")
        if sidecar.backend != "open-inference":
            yield f"{server}: its sidecar looks for {sidecar.backend}"
        said = _told_triton(server) if server.name == "triton" else _told_mlserver(documents, server)
        for name, is_at, sought in (
            ("REST", f"http://{said['host']}:{said['http']}", sidecar.open_inference_url),
            ("gRPC", f"{said['host']}:{said['grpc']}", sidecar.open_inference_grpc),
            ("its repository", said["repository"], str(sidecar.open_inference_repository)),
        ):
            if is_at != sought:
                yield f"{server}: {name} is at {is_at}, sought at {sought}"
        if not all(map(_is_loopback, (said["host"], said["metrics host"]))):
            yield f"{server}: listens on {said['host']} and {said['metrics host']}"
        if not said["only on demand"]:
            yield f"{server}: loads what the sidecar did not ask for"
        limits = server.spec["resources"]["limits"]
        if not sidecar.memory_budget_bytes or sidecar.memory_budget_bytes >= quantity(limits["memory"]):
            yield f"{server}: models may take more memory than there is"
        if sidecar.cpus != math.ceil(quantity(limits["cpu"])):
            yield f"{server}: has {limits['cpu']} CPUs, the sidecar is told {sidecar.cpus}"


def _told_triton(server: Container) -> dict[str, Any]:
    given = dict(word.removeprefix("--").split("=", 1) for word in server.spec["args"])
    hosts = {given.get(f"{kind}-address", "0.0.0.0") for kind in ("http", "grpc")}
    return {
        "host": hosts.pop() if len(hosts) == 1 else str(hosts),
        "metrics host": given.get("metrics-address", "0.0.0.0"),
        "http": given.get("http-port", "8000"),
        "grpc": given.get("grpc-port", "8001"),
        "repository": given.get("model-repository"),
        "only on demand": given.get("model-control-mode") == "explicit",
    }


def _told_mlserver(documents: list[Document], server: Container) -> dict[str, Any]:
    given = environment(documents, server)
    host = given.get("MLSERVER_HOST", "0.0.0.0")
    repository = given.get("MLSERVER_MODEL_REPOSITORY_ROOT")
    return {
        "host": host,
        "metrics host": host,
        "http": given.get("MLSERVER_HTTP_PORT", "8080"),
        "grpc": given.get("MLSERVER_GRPC_PORT", "8081"),
        "repository": repository if server.spec["args"] == ["start", repository] else server.spec["args"],
        "only on demand": given.get("MLSERVER_LOAD_MODELS_AT_STARTUP") == "false",
    }


def _torchserve_parser() -> argparse.ArgumentParser:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its version file open
        from ts.arg_parser import ArgParser
    parser: argparse.ArgumentParser = ArgParser.ts_parser()
    return parser


def _mount_at(of: Container, path: str) -> dict[str, Any] | None:
    return next((mount for mount in of.mounts.values() if mount["mountPath"].rstrip("/") == path.rstrip("/")), None)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
