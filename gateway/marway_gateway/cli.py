"""The verb `marway gateway`. What it needs is imported when it runs, so that `marway --help` stays fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the gateway's verb to the `marway` command."""

    @app.command("gateway")
    def gateway(
        registry: Annotated[str | None, typer.Option(help="Registry URL, such as file:///path.")] = None,
        observations: Annotated[
            str | None, typer.Option(help="URL of the store of observations and feedback; the registry's without it.")
        ] = None,
        pods: Annotated[str | None, typer.Option(help="Sidecars, URL or NAME=URL, with commas between them.")] = None,
        host: Annotated[str | None, typer.Option(help="Address of all ports but the admin port.")] = None,
        port: Annotated[int | None, typer.Option(help="Public HTTP port; 0 picks a free one.")] = None,
        admin_port: Annotated[int | None, typer.Option(help="Admin HTTP port; 0 picks a free one.")] = None,
        grpc_port: Annotated[int | None, typer.Option(help="gRPC port; 0 picks a free one.")] = None,
        processes: Annotated[int | None, typer.Option(help="Processes that share the ports, on Linux; 1.")] = None,
        config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
        home: Annotated[
            # Marks the processes of one `marway up` on the command line.
            str | None, typer.Option(hidden=True)
        ] = None,
    ) -> None:
        """Run a gateway: the front door that takes predict requests and passes them to the pods."""
        from marway.settings import load_settings
        from marway_gateway.settings import GatewaySettings

        settings = load_settings(
            GatewaySettings,
            config=config,
            registry=registry,
            observations=observations,
            pods=pods,
            host=host,
            grpc_host=host,
            port=port,
            admin_port=admin_port,
            grpc_port=grpc_port,
            processes=processes,
        )
        if settings.processes > 1:
            from marway_gateway.processes import run_processes

            run_processes(settings, home=home)
        else:
            from marway_gateway.server import run

            run(settings)
