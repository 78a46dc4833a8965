"""`marway up` from its first step to its last."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from marway.admin_client import AdminClient, comparison_of, token_of
from marway.client import AsyncClient
from marway.errors import MarwayError, ModelNotFound, ReleaseRefused, VersionNotFound
from marway.process.die_with_parent import dies_with_me
from marway.process.stop_request import watch_for_stop
from marway.refs import DEFAULT_LABEL, Reference
from marway.registry import Registry, open_registry
from marway.resources import shipped
from marway.wire.comparison import comparison_lines, remarks
from marway_ops.up.home import Home
from marway_ops.up.local_cluster import LocalCluster
from marway_ops.up.plan import PlannedPod
from marway_ops.up.settings import UpSettings
from marway_ops.up.stopping import close, unless_stopped
from marway_ops.up.view import View

__all__ = ["run"]

_EXAMPLES = ("intent", "digits")
_EXAMPLE_VERSION = "1.0"
_FIRST_SENTENCE = "wake me up at half past six tomorrow"
_FIRST_PREDICTION_TIMEOUT_S = 120.0

PublishArchive = Callable[[Path, str], tuple[str, str]]
"""Publishes an archive into a registry URL; returns the model's name and version."""


async def run(
    settings: UpSettings,
    plan: Sequence[PlannedPod],
    view: View,
    publish: PublishArchive,
    *,
    archive: Path | None,
    config: Path | None,
) -> None:
    """Bring everything up, the pods as planned, serve until told to stop, stop everything.

    An ``archive`` is published, released and served; the parts take their tables from ``config``, an absolute path.

    Raises:
        MarwayError: Something cannot be brought up; whatever was started has been stopped.
    """
    stop = watch_for_stop()
    home = Home(settings.home.absolute())
    with home.held():
        view.begin(home.root)
        opened = await asyncio.to_thread(_registry, settings, home)  # better said now than in a child's log
        registry = opened.url
        home.store.mkdir(parents=True, exist_ok=True)
        released: list[tuple[str, str]] = []
        if archive is not None:
            with view.step(f"published {archive}"):
                released.append(await asyncio.to_thread(publish, archive, registry))
        cluster = LocalCluster(
            home,
            registry=registry,
            observations=settings.observations,
            port=settings.port,
            plan=plan,
            config=config,
            started=lambda what, seconds: view.done(f"{what} up", seconds),
            noticed=view.warned,
        )
        started: float | None = None
        try:
            # TorchServe starts while the examples train: neither waits for the other.
            work: list[Awaitable[None]] = [cluster.start()]
            if settings.demo:
                work.append(_examples(home, registry, view))
                released.extend((name, _EXAMPLE_VERSION) for name in _EXAMPLES)
            if await unless_stopped(stop, *work) and await unless_stopped(
                stop, _release(cluster.admin_url, opened, released, view)
            ):
                document = cluster.ready_line()
                home.write_ready(document)
                view.ready(document)
                if settings.demo:
                    await unless_stopped(stop, _first_prediction(cluster.gateway_url, view))
                await stop.wait()
            view.stopping()
            started = time.monotonic()
        finally:
            await close(cluster)
        view.stopped(time.monotonic() - started)


def _registry(settings: UpSettings, home: Home) -> Registry:
    """Return the registry, made if it is the home's own or that was asked for, and checked. Blocks."""
    url = settings.registry
    registry = open_registry(url or home.registry.as_uri(), create=url is None or settings.create_registry)
    registry.check_there()
    registry.probe()
    return registry


async def _examples(home: Home, url: str, view: View) -> None:
    registry = open_registry(url)
    for name in _EXAMPLES:
        if await asyncio.to_thread(_is_published, registry, name):
            view.done(f"example {name} {_EXAMPLE_VERSION} is in the registry")
            continue
        with view.step(f"example {name} {_EXAMPLE_VERSION} trained and published"):
            await _train_and_publish(home, url, name, output=view.output)


def _is_published(registry: Registry, name: str) -> bool:
    with contextlib.suppress(ModelNotFound, VersionNotFound):
        return registry.resolve(Reference(name, _EXAMPLE_VERSION)) is not None
    return False


async def _train_and_publish(home: Home, registry: str, name: str, *, output: Callable[[str], None]) -> None:
    """Run an example's training script, which ends with its publication; the label comes when a pod has proved it."""
    script = shipped(f"examples/{name}/train.py")
    out = home.example(name)
    out.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-u", str(script), "--out", str(out), "--registry", registry),
        *("--name", name, "--version", _EXAMPLE_VERSION, "--label", ""),
    ]
    process = await asyncio.create_subprocess_exec(
        *dies_with_me(command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            if line:
                lines.append(line)
                output(line)
        status = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status != 0:
        raise MarwayError(f"training the example {name!r} failed with status {status}: {' / '.join(lines[-5:])}")


async def _release(admin: str, registry: Registry, released: Sequence[tuple[str, str]], view: View) -> None:
    """Have a pod prove each version, and point the default label at it, where that was not done by an earlier run."""
    for name, version in released:
        state = await asyncio.to_thread(registry.state, name)
        if name in _EXAMPLES and DEFAULT_LABEL in state.labels:
            continue  # its user may have moved it since
        if state.labels.get(DEFAULT_LABEL) == version:
            continue
        client = AdminClient(admin, token=token_of(None, None))
        try:
            with view.step(f"{name} {version} proved by a pod, {DEFAULT_LABEL} → {version}"):
                done = await asyncio.to_thread(client.release, name, version, label=DEFAULT_LABEL)
        except ReleaseRefused as exc:
            # Not a reason to serve nothing: the version is published, and the one before it goes on being served.
            lines = comparison_lines(exc.comparison) if exc.comparison is not None else []
            for line in (*lines, f"{exc.message}: `marway release {name} {version} --force`"):
                view.output(line)
            continue
        for line in remarks(comparison_of(done)) if name not in _EXAMPLES else ():
            view.output(line)


async def _first_prediction(gateway: str, view: View) -> None:
    reference = f"{_EXAMPLES[0]}/{DEFAULT_LABEL}"
    started = time.monotonic()
    async with AsyncClient(gateway, timeout_s=_FIRST_PREDICTION_TIMEOUT_S) as client:
        # What curl -d says, so that the line shown repeats exactly this.
        kind = "application/x-www-form-urlencoded"
        answer = await client.predict_full(reference, _FIRST_SENTENCE, content_type=kind)
    text = " ".join(answer.content.decode(errors="replace").split())
    view.prediction(f"{gateway}/predict/{reference}", _FIRST_SENTENCE, text, time.monotonic() - started)
