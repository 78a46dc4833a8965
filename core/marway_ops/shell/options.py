"""Options that many verbs share, and where their defaults come from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from marway.admin_client import ADMIN_ENV, TOKEN_ENV, TOKEN_FILE_ENV, AdminClient, token_of
from marway.errors import InvalidSettings
from marway.registry import Registry, open_registry
from marway.settings import REGISTRY_ENV

__all__ = [
    "DEBUG_ENV",
    "DEFAULT_HOME",
    "GATEWAY_ENV",
    "AdminOption",
    "CreateRegistryOption",
    "GatewayOption",
    "JsonOption",
    "LimitOption",
    "NoteOption",
    "RegistryOption",
    "TokenFileOption",
    "TokenOption",
    "admin_client",
    "admin_if_any",
    "admin_url",
    "gateway_url",
    "opened_registry",
    "registry_url",
    "served_here",
]

DEFAULT_HOME = Path(".marway")
"""Home of `marway up`, below the current directory."""
_DEFAULT_GATEWAY = "http://127.0.0.1:8000"
_DEFAULT_ADMIN = "http://127.0.0.1:8001"
DEBUG_ENV = "MARWAY_DEBUG"
"""Set, an error of the operating system is shown with its traceback."""
GATEWAY_ENV = "MARWAY_GATEWAY_URL"

RegistryOption = Annotated[
    str | None,
    typer.Option(help=f"Registry URL; else ${REGISTRY_ENV}, else ./.marway/registry."),
]
CreateRegistryOption = Annotated[
    bool, typer.Option("--create-registry", help="Make the registry if there is none yet.")
]
GatewayOption = Annotated[
    str | None,
    typer.Option(help=f"Gateway URL; else ${GATEWAY_ENV}, else the one that ./.marway serves."),
]
AdminOption = Annotated[
    str | None,
    typer.Option("--gateway", help=f"URL of a gateway's admin port; else ${ADMIN_ENV}, else that of ./.marway."),
]
TokenOption = Annotated[
    str | None,
    typer.Option(help=f"Bearer token for the gateway; else ${TOKEN_ENV}. A file is safer."),
]
TokenFileOption = Annotated[Path | None, typer.Option(help=f"File whose first token is used; else ${TOKEN_FILE_ENV}.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
LimitOption = Annotated[int, typer.Option(min=1, help="Show at most this many.")]
NoteOption = Annotated[str | None, typer.Option(help="Why, for the history.")]


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
    url = given or os.environ.get(GATEWAY_ENV) or served_here("gateway") or _DEFAULT_GATEWAY
    if not url.startswith(("http://", "https://")):
        raise InvalidSettings(f"gateway {url!r} is no URL: use one such as {_DEFAULT_GATEWAY}")
    return url.rstrip("/")


def admin_client(gateway: str | None, token: str | None, token_file: Path | None) -> AdminClient:
    """Return a client of the admin port: the flag's, the environment's, that of `marway up` here, or the default."""
    url = gateway or os.environ.get(ADMIN_ENV) or served_here("admin") or _DEFAULT_ADMIN
    return AdminClient(url, token=token_of(token, token_file))


def opened_registry(registry: str | None) -> Registry:
    """Return the registry, as `registry_url` finds it."""
    return open_registry(registry_url(registry))


def admin_if_any(
    gateway: str | None, registry: str | None, *, token: str | None = None, token_file: Path | None = None
) -> AdminClient | None:
    """Return a client of the admin port that a change goes through, or None for the registry itself.

    ``--gateway`` and ``--registry`` say it, then their variables, the gateway's first; with none of them it is the
    gateway of a `marway up` that runs in this directory.

    Raises:
        InvalidSettings: Both are given.
    """
    if gateway is not None and registry is not None:
        raise InvalidSettings("give --gateway or --registry, not both: a gateway changes its own registry")
    if registry is not None:
        return None
    url = admin_url(gateway, registry)
    return AdminClient(url, token=token_of(token, token_file)) if url else None


def admin_url(gateway: str | None, registry: str | None) -> str | None:
    """Return the admin port of the flag or the environment, else of a `marway up` here whose registry is used."""
    url = gateway or os.environ.get(ADMIN_ENV)
    if url or registry or os.environ.get(REGISTRY_ENV):
        return url or None
    return served_here("admin")


def served_here(name: str, home: Path = DEFAULT_HOME) -> str | None:
    """Return a URL of the `marway up` that runs from this home, or None when none does."""
    try:
        return str(json.loads((home / "ready.json").read_text())[name])
    except (OSError, ValueError, KeyError, TypeError):
        return None
