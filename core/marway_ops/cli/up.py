"""`marway up`: everything on this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from marway.errors import InvalidInput
from marway.settings import OBSERVATIONS_ENV, REGISTRY_ENV
from marway_ops.shell.options import CreateRegistryOption
from marway_ops.shell.output import warn

__all__ = ["up"]


def up(
    archive: Annotated[Path | None, typer.Argument(help="Publish, release and serve this .mar or .bundle.")] = None,
    home: Annotated[Path | None, typer.Option(help="Directory that everything is kept in; ./.marway.")] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65533, help="Gateway's port, 8000; admin is the next, gRPC the one after. 0: free ones."
        ),
    ] = None,
    pods: Annotated[int | None, typer.Option(min=1, max=64, help="How many pods; 1.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="What serves models: torchserve, native, another backend; several with commas between, pod by pod."
        ),
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POD=COMMAND",
            help="Start this command beside a pod and keep it up: a model server that Marway does not bring.",
        ),
    ] = None,
    registry: Annotated[
        str | None, typer.Option(help=f"Registry URL; else ${REGISTRY_ENV}, else the registry in the home.")
    ] = None,
    observations: Annotated[
        str | None,
        typer.Option(help=f"URL of the store of observations; else ${OBSERVATIONS_ENV}, else the registry's."),
    ] = None,
    create_registry: CreateRegistryOption = False,
    demo: Annotated[bool, typer.Option("--demo", help="Train and publish the examples once, and predict.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with tables [up], [gateway], [sidecar] and [runtime]; see config/up.toml."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines; the one with event ready says where.")
    ] = False,
) -> None:
    """Start pods and a gateway on this machine and serve until Ctrl-C."""
    from importlib.util import find_spec

    from marway.settings import load_settings
    from marway_ops.up.plan import check_packages, idle_variables, plan_pods
    from marway_ops.up.run import run
    from marway_ops.up.settings import UpSettings, check_parts
    from marway_ops.up.view import JsonView, TerminalView

    settings = load_settings(
        UpSettings,
        config=config,
        home=home,
        port=port,
        pods=pods,
        engine=engine,
        servers=_servers(server) if server else None,
        registry=registry,
        observations=observations,
        create_registry=create_registry or None,
        demo=demo or None,
    )

    if archive is not None and not archive.is_file():
        raise InvalidInput(f"there is no archive {archive}: pack one with `marway pack`")
    engines = settings.engines
    for needed in ("uvicorn", *(("sklearn",) if settings.demo else ())):
        if find_spec(needed) is None:  # say it now, not in a child's log
            raise ModuleNotFoundError(f"No module named {needed!r}", name=needed)
    warnings = [*check_parts(config, os.environ), *idle_variables(os.environ, engines)]
    plan = plan_pods(engines, config=config, servers=settings.servers)
    check_packages(plan)
    for warning in warnings:
        warn(warning)
    view = JsonView() if as_json else TerminalView()
    asyncio.run(run(settings, plan, view, _publish, archive=archive, config=config and config.absolute()))


def _servers(given: list[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for name, equals, command in pairs:
        if not (name and equals and command.strip()):
            raise typer.BadParameter("say POD=COMMAND, such as pod-0='mlserver start models'", param_hint="--server")
    return {name: command for name, _, command in pairs}


def _publish(archive: Path, registry: str) -> tuple[str, str]:
    # Found by its entry point's room: core itself imports no component.
    from importlib import import_module

    publish_archive = import_module("marway_archiver").publish_archive
    record, _ = publish_archive(archive, registry=registry)
    return record.name, record.version
