"""`marway doctor`: whether this machine, or a cluster, can run Marway, and what to do where it cannot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from marway.admin_client import AdminClient, token_of
from marway.settings import REGISTRY_ENV
from marway_ops.cli.options import DEFAULT_HOME, JsonOption, TokenFileOption, TokenOption
from marway_ops.cluster import NAMESPACE, Kubectl, examine_cluster
from marway_ops.doctor.findings import show_findings
from marway_ops.doctor.machine import examine

__all__ = ["doctor"]


def doctor(
    home: Annotated[Path, typer.Option(help="Home that `marway up` would use.")] = DEFAULT_HOME,
    port: Annotated[int, typer.Option(min=0, max=65533, help="Port that `marway up` would use.")] = 8000,
    registry: Annotated[
        str | None, typer.Option(help=f"Registry to look at; else ${REGISTRY_ENV}, else the home's own.")
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
        client = AdminClient(gateway, token=token_of(token, token_file)) if gateway is not None else None
        found = examine_cluster(Kubectl(namespace=namespace or NAMESPACE, context=context), admin=client)
        show_findings(found, as_json=as_json, well="nothing is wrong in the cluster")
        return
    for flag, value in (("--namespace", namespace), ("--context", context), ("--gateway", gateway)):
        if value is not None:
            raise typer.BadParameter("it goes with --cluster", param_hint=flag)
    findings = examine(home=home, port=port, registry=registry or os.environ.get(REGISTRY_ENV) or None)
    show_findings(findings, as_json=as_json, well="this machine can run `marway up`")
