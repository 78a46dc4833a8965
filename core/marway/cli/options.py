"""Options that many verbs share, and where their defaults come from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from marway.errors import InvalidSettings
from marway.settings import REGISTRY_ENV

__all__ = ["DEFAULT_HOME", "GatewayOption", "JsonOption", "RegistryOption", "gateway_url", "registry_url"]

DEFAULT_HOME = Path(".marway")
"""Home of `marway up`, below the current directory."""
_DEFAULT_GATEWAY = "http://127.0.0.1:8000"
_GATEWAY_ENV = "MARWAY_GATEWAY_URL"

RegistryOption = Annotated[
    str | None,
    typer.Option(help=f"Registry URL; else ${REGISTRY_ENV}, else ./.marway/registry."),
]
GatewayOption = Annotated[
    str | None,
    typer.Option(help=f"Gateway URL; else ${_GATEWAY_ENV}, else the one that ./.marway serves."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def registry_url(given: str | None) -> str:
    """Return the registry to use: the flag's, the environment's, or that of a `marway up` in this directory.

    Raises:
        InvalidSettings: There is none of them.
    """
    url = given or os.environ.get(REGISTRY_ENV)
    if url:
        return url
    local = DEFAULT_HOME / "registry"
    if local.is_dir():
        return local.absolute().as_uri()
    raise InvalidSettings(
        f"which registry? give --registry URL or set {REGISTRY_ENV}, such as file:///path "
        "(a directory where `marway up` ran needs neither)"
    )


def gateway_url(given: str | None) -> str:
    """Return the gateway to use: the flag's, the environment's, that of `marway up` here, or the default port."""
    url = given or os.environ.get(_GATEWAY_ENV)
    if not url:
        try:
            url = json.loads((DEFAULT_HOME / "ready.json").read_text())["gateway"]
        except (OSError, ValueError, KeyError):
            url = _DEFAULT_GATEWAY
    if not url.startswith(("http://", "https://")):
        raise InvalidSettings(f"gateway {url!r} is no URL: use one such as {_DEFAULT_GATEWAY}")
    return url.rstrip("/")
