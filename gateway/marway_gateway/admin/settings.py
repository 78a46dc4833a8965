"""Admin routes of what this gateway was told: every setting in force, and who may call. No secret is among it."""

from __future__ import annotations

import re
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter
from pydantic import Field
from pydantic.config import JsonDict

from marway.settings import variable_of
from marway.tokens import Tokens
from marway_gateway.admin.views import AdminView
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.json_models import JsonValue, examples
from marway_gateway.settings import GatewaySettings

__all__ = ["AccessView", "SettingView", "access_of", "settings_of", "settings_router"]

_CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s]+@")
_QUERY: Final = re.compile(r"(://[^\s?#]*)[?#]\S*")
_HIDDEN: Final = "***"


class SettingView(AdminView):
    """One setting of the gateway."""

    model_config = examples(
        {
            "name": "default_timeout_s",
            "value": 30.0,
            "default": 60.0,
            "given": True,
            "variable": "MARWAY_GATEWAY_DEFAULT_TIMEOUT_S",
            "meaning": "Deadline in seconds of a request that names none.",
        }
    )

    name: str
    value: JsonValue = Field(description="In force; passwords in URLs, and what is behind `?`, are hidden.")
    default: JsonValue
    given: bool = Field(description="Whether a flag, a variable or a file says it.")
    variable: str = Field(description="The environment variable that sets it.")
    meaning: str


class TokensView(AdminView):
    """The tokens that a port wants: their names, never themselves."""

    model_config = examples({"file": "/etc/marway/admin-tokens", "names": ["ana", "ci"], "unnamed": 1})

    file: str
    names: tuple[str, ...] = Field(description="The names by which the history calls who changed something.")
    unnamed: int = Field(description="How many have no name.")


class WebhookView(AdminView):
    """Who is sent events: where to without what may be secret in the address, and which."""

    model_config = examples(
        {"name": "retrain", "host": "https://ci.example.com", "types": ["*"], "models": ["intent", "fraud-*"]}
    )

    name: str
    host: str
    types: tuple[str, ...]
    models: tuple[str, ...]


_ACCESS: Final[JsonDict] = {
    "admin_tokens": {"file": "/etc/marway/admin-tokens", "names": ["ana", "ci"], "unnamed": 1},
    "predict_tokens": None,
    "admin_on": "127.0.0.1:8001",
    "public_on": "0.0.0.0:8000",
    "grpc_on": "0.0.0.0:8002",
    "admin_allowed_hosts": [],
    "cors_origins": ["https://app.example.com"],
    "webhooks": [],
    "events_sent": True,
}


class AccessView(AdminView):
    """Who may call this gateway, and whom it calls of itself."""

    model_config = examples(_ACCESS)

    admin_tokens: TokensView | None = Field(description="Of the admin port; null where it wants none.")
    predict_tokens: TokensView | None = Field(description="Of the public and the gRPC port; null where they want none.")
    admin_on: str = Field(description="Address that the admin port was to listen on; port 0 stands for any.")
    public_on: str
    grpc_on: str
    admin_allowed_hosts: tuple[str, ...]
    cors_origins: tuple[str, ...]
    webhooks: tuple[WebhookView, ...]
    events_sent: bool = Field(description="Whether this gateway may send events: its setting `duties`.")


def settings_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["settings"])

    @router.get("/settings", summary="List the settings in force, with their meaning")
    async def list_settings() -> list[SettingView]:
        """Of the process that answers; all processes of a gateway have the same."""
        return settings_of(current().settings)

    @router.get("/access", summary="Who may call, and who is sent events")
    async def show_access() -> AccessView:
        return access_of(current())

    return router


def settings_of(settings: GatewaySettings) -> list[SettingView]:
    """Return every setting in the order of the classes, with secrets hidden."""
    values = settings.model_dump(mode="json")
    found = []
    for name, field in type(settings).model_fields.items():
        value, default = _shown(values[name]), _shown(_plain(field.get_default(call_default_factory=True)))
        found.append(
            SettingView(
                name=name,
                value=value,
                default=default,
                given=name in settings.model_fields_set,
                variable=variable_of(type(settings), name),
                meaning=" ".join((field.description or "").split()),
            )
        )
    return found


def access_of(gateway: Gateway) -> AccessView:
    """Return who may call a gateway, and whom it calls of itself."""
    settings = gateway.settings

    def tokens(which: Literal["admin_tokens_file", "predict_tokens_file"]) -> TokensView | None:
        path = getattr(settings, which)
        return None if path is None else _names(str(path), gateway.token_files[path].tokens)

    webhooks = gateway.webhooks.current() if gateway.webhooks is not None else ()
    return AccessView(
        admin_tokens=tokens("admin_tokens_file"),
        predict_tokens=tokens("predict_tokens_file"),
        admin_on=f"{settings.admin_host}:{settings.admin_port}",
        public_on=f"{settings.host}:{settings.port}",
        grpc_on=f"{settings.grpc_host}:{settings.grpc_port}",
        admin_allowed_hosts=settings.admin_allowed_hosts,
        cors_origins=settings.cors_origins,
        webhooks=tuple(
            # Paths and queries of webhooks are often all that keeps strangers out.
            WebhookView(name=each.name, host=_host(each.url), types=each.types, models=each.models)
            for each in webhooks
        ),
        events_sent=settings.duties,
    )


def _names(file: str, tokens: Tokens) -> TokensView:
    named = sorted({name for _, name in tokens.known if name is not None})
    return TokensView(file=file, names=tuple(named), unnamed=sum(name is None for _, name in tokens.known))


def _host(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _plain(value: Any) -> Any:
    """Return a default as JSON has it: defaults are simple values, and none of them is a pod."""
    if isinstance(value, tuple | frozenset | set):
        return list(value)
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


def _shown(value: Any) -> Any:
    """Return a value in which URLs have neither passwords nor queries."""
    if isinstance(value, str):
        return _QUERY.sub(rf"\1?{_HIDDEN}", _CREDENTIALS.sub(f"{_HIDDEN}@", value))
    if isinstance(value, list | tuple):
        return [_shown(each) for each in value]
    if isinstance(value, dict):
        return {name: _shown(each) for name, each in value.items()}
    return value
