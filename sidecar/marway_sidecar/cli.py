"""The verb `marway sidecar`."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the sidecar's verb to the command."""
    app.command(name="sidecar")(sidecar)


def sidecar(
    registry: str | None = typer.Option(None, help="Registry URL, such as file:///path."),
    backend: str | None = typer.Option(None, help="Kind of model server: torchserve, native, or that of a package."),
    runtime_dir: Path | None = typer.Option(None, help="Directory shared with the runtime."),
    archive_store: Path | None = typer.Option(None, help="Directory of fetched archives."),
    host: str | None = typer.Option(None, help="Address to listen on."),
    port: int | None = typer.Option(None, help="Port to listen on."),
    name: str | None = typer.Option(None, help="Name of this pod."),
    config: Path | None = typer.Option(None, help="TOML file of settings; see config/sidecar.toml."),
    home: Path | None = typer.Option(None, hidden=True, help="Named on the command line of every process."),
) -> None:
    """Serve any version on demand beside a model server."""
    from marway.settings import load_settings
    from marway.telemetry import configure_logging
    from marway_sidecar.serve import run
    from marway_sidecar.settings import SidecarSettings

    configure_logging()
    settings = load_settings(
        SidecarSettings,
        config=config,
        registry=registry,
        backend=backend,
        runtime_dir=runtime_dir,
        archive_store=archive_store,
        host=host,
        port=port,
        name=name,
    )
    run(settings)
