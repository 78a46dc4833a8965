"""What a client of an old server has to change to ask Marway: mostly the host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from marway_archiver.adopt.comparing.comparing import Model
from marway_archiver.adopt.comparing.routes import PROTOCOLS, Route, default_route
from marway_archiver.adopt.found import Found, Kind

__all__ = ["ClientLine", "client_lines"]

_GATEWAY: Final = "http://GATEWAY:8000"
_GRPC: Final[dict[Kind, tuple[str, str]]] = {
    "torchserve": (
        "7070",
        "`org.pytorch.serve.grpc.inference.InferenceAPIsService` and `inference.GRPCInferenceService`",
    ),
    "kserve": ("8081", "`inference.GRPCInferenceService`"),
    "modelmesh": (
        "8033",
        "`inference.GRPCInferenceService`; the metadata `mm-model-id` and `mm-vmodel-id` are not read",
    ),
    "triton": ("8001", "`inference.GRPCInferenceService`"),
    "mlserver": ("8081", "`inference.GRPCInferenceService`"),
}
"""By platform, the port of its gRPC and which of its services Marway has."""
_MANAGED: Final[dict[Kind, str]] = {
    "torchserve": "TorchServe's management API (`:8081/models`) is on the gateway's admin port where the setting "
    "`torchserve_management` is on (docs/torchserve.md); else `marway release`, `marway load`, `marway serving`",
    "kserve": "what was changed by `kubectl apply` of an InferenceService is now `marway publish` and "
    "`marway release`; `canaryTrafficPercent` is `marway traffic`",
    "modelmesh": "what was changed by `kubectl apply` of a Predictor is now `marway publish` and `marway release`",
    "triton": "`/v2/repository/models/M/load` and `…/unload` are on the gateway's admin port; a new version is "
    "`marway publish`, not a new directory",
    "mlserver": "`/v2/repository/models/M/load` and `…/unload` are on the gateway's admin port; a new version is "
    "`marway publish`, not a new directory",
}


@dataclass(frozen=True, slots=True)
class ClientLine:
    """One line that a client changes.

    Attributes:
        what: Which clients: by protocol and model.
        before: What they have; empty for a line that is no URL.
        after: What they have instead.
        why: What differs, as one phrase.
        tried: Whether requests were sent both ways just now.
    """

    what: str
    before: str
    after: str
    why: str
    tried: bool = False


def client_lines(
    found: Found, asked: Sequence[Model], *, old: str | None = None, gateway: str | None = None
) -> list[ClientLine]:
    """Return what changes, model by model and protocol by protocol, and what does for the platform as a whole.

    Args:
        found: What the source holds.
        asked: Requests of clients; models that nobody asked get the line of their usual protocol.
        old: The old server's address, where it is known better than by the source.
        gateway: Marway's, where it is known.
    """
    gateway = (gateway or _GATEWAY).rstrip("/")
    lines: dict[tuple[str, str], ClientLine] = {}
    for model in found.models:
        if model.problem is not None:
            continue
        mine = next((one for one in asked if one.found is model), Model(model, (), model.labels))
        routes = {
            (each.route.protocol, each.route.verb, each.route.version is None, each.route.prefix): replace(
                each.route, query="", rest=""
            )
            for each in mine.requests
        }
        tried = bool(routes)
        usual = default_route(model.endpoint.protocol, model.endpoint.model, model.endpoint.version)
        for route in routes.values() or [usual]:
            line = _line(mine, route, old or model.endpoint.url, gateway, tried=tried)
            lines.setdefault((line.before, line.after), line)
    return [*lines.values(), *_of_platform(found, gateway)]


def _line(asked: Model, route: Route, old: str | None, gateway: str, *, tried: bool) -> ClientLine:
    model, there = asked.found, asked.at_marway(route)
    changes = ["the host"]
    if route.prefix:
        changes.append(f"no {route.prefix}")
    if there.model != route.model:
        changes.append(f"the model is called {there.model}")
    if there.version != route.version:
        changes.append(
            f"the version is called {there.version}"
            if route.version is not None
            else f"{there.version} has to be named"
        )
    if model.endpoint.host is not None:
        changes.append(f"the header Host: {model.endpoint.host} is not needed")
    what = f"{PROTOCOLS[route.protocol]}, {model.name}"
    base = (old or "http://OLD").rstrip("/")
    return ClientLine(what, f"{base}{route.path}", f"{gateway}{there.path}", "; ".join(changes), tried)


def _of_platform(found: Found, gateway: str) -> Iterator[ClientLine]:
    host = urlsplit(gateway).netloc.partition(":")[0]
    port, services = _GRPC[found.kind]
    yield ClientLine(
        "gRPC", f"OLD:{port}", f"{host}:8002", f"the gateway's `--grpc-port`, with the same services: {services}"
    )
    if found.kind in ("torchserve", "kserve", "modelmesh"):
        yield ClientLine(
            "retries", "", "", "a handler's exception is status 503 in TorchServe and 500 here: what is tried again "
            "on 503 is now only what had no room, as `Retry-After` says"
        )  # fmt: skip
    yield ClientLine("managing models", "", "", _MANAGED[found.kind])
    yield ClientLine(
        "who may ask", "", "", "tokens of the old server are not known: where the gateway has tokens, "
        "`Authorization: Bearer` with one of its own"
    )  # fmt: skip
