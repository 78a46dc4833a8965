"""The verb `marway runtime`."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the runtime's verb to the command."""
    app.command(name="runtime")(runtime)


def runtime(
    engine: str | None = typer.Option(None, help="What serves models: torchserve, or native, which needs no Java."),
    runtime_dir: Path | None = typer.Option(None, help="Directory shared with the sidecar."),
    model_store: Path | None = typer.Option(None, help="Directory of archives; the sidecar fills it."),
    config: Path | None = typer.Option(None, help="TOML file of settings; see config/runtime.toml."),
    write_class_archive: bool = typer.Option(
        False, help="Write the archive of Java's classes that makes starts faster, and end: for a build of an image."
    ),
    home: Path | None = typer.Option(None, hidden=True, help="Named on the command line of every process."),
) -> None:
    """Start a model server, TorchServe unless told another, with a safe, quiet configuration and keep it up."""
    import asyncio

    from marway.process.stop_request import watch_for_stop
    from marway.settings import load_settings
    from marway.telemetry import configure_logging
    from marway_runtime.engines.torchserve.class_archive import class_archive
    from marway_runtime.settings import RuntimeSettings
    from marway_runtime.supervisor import run

    if not write_class_archive:  # which prints its path, and no log
        configure_logging()
    settings = load_settings(
        RuntimeSettings, config=config, engine=engine, runtime_dir=runtime_dir, model_store=model_store
    )
    settings = settings.model_copy(
        update={"runtime_dir": settings.runtime_dir.absolute(), "model_store": settings.model_store.absolute()}
    )
    if write_class_archive:
        archive = class_archive(settings)
        if not asyncio.run(archive.write(home=(home or settings.runtime_dir).absolute(), wait=True)):
            raise typer.Exit(1)
        typer.echo(archive.path)
        return

    async def serve() -> None:
        await run(settings, home=(home or settings.runtime_dir).absolute(), stop=watch_for_stop())

    asyncio.run(serve())
