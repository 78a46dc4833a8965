"""Which model a request of a client asks, by the path of its protocol, and where Marway is asked the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from marway_archiver.adopt.found import Protocol

__all__ = ["PROTOCOLS", "Route", "default_route", "route_of"]

PROTOCOLS: Final[Mapping[Protocol, str]] = {
    "torchserve": "TorchServe's REST",
    "v1": "v1 of TensorFlow Serving and KServe",
    "v2": "Open Inference v2",
}

_NAME: Final = r"(?P<model>[^/:?]+)"
_ROUTES: Final[tuple[tuple[Protocol, re.Pattern[str]], ...]] = (
    ("torchserve", re.compile(rf"(?P<verb>predictions|explanations)/{_NAME}(?:/(?P<version>[^/]+))?(?P<rest>/.*)?")),
    ("torchserve", re.compile(rf"(?P<verb>wfpredict)/{_NAME}(?P<version>(?!))?(?P<rest>/.*)?")),
    (
        "v1",
        re.compile(
            rf"v1/models/{_NAME}(?:/versions/(?P<version>[^/:]+)|/labels/(?P<label>[^/:]+))?"
            r":(?P<verb>predict|explain|classify|regress)(?P<rest>/)?"
        ),
    ),
    ("v2", re.compile(rf"v2/models/{_NAME}(?:/versions/(?P<version>[^/]+))?/(?P<verb>infer|explain)(?P<rest>/)?")),
)
_BEGINS: Final = re.compile(r"/(?=predictions/|explanations/|wfpredict/|v1/models/|v2/models/)")
_VERBS: Final[Mapping[Protocol, str]] = {"torchserve": "predictions", "v1": "predict", "v2": "infer"}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a prediction is asked for.

    Attributes:
        protocol: Whose path it is.
        model: The model's name there.
        version: The version that the path names, or None for the default one.
        label: The label that a path of v1 names.
        verb: What is asked of the model, such as `predictions` or `infer`.
        prefix: What a router before the old server put in front of the path, such as `/seldon/shop/iris`.
        rest: What follows the version on TorchServe's paths.
        query: After `?`, without it.
    """

    protocol: Protocol
    model: str
    version: str | None = None
    label: str | None = None
    verb: str = ""
    prefix: str = ""
    rest: str = ""
    query: str = ""

    @property
    def path(self) -> str:
        """The path with its query, as the old server is asked."""
        verb = self.verb or _VERBS[self.protocol]
        model, query = quote(self.model, safe=""), f"?{self.query}" if self.query else ""
        version = None if self.version is None else quote(self.version, safe="")
        if self.protocol == "torchserve":
            path = f"/{verb}/{model}" + (f"/{version}" if version is not None else "") + self.rest
        elif self.protocol == "v1":
            which = f"/labels/{quote(self.label, safe='')}" if self.label is not None else ""
            path = f"/v1/models/{model}{f'/versions/{version}' if version is not None else which}:{verb}"
        else:
            path = f"/v2/models/{model}" + (f"/versions/{version}" if version is not None else "") + f"/{verb}"
        return f"{self.prefix}{path}{query}"

    def at_marway(self, model: str, version: str, unnamed: str | None = None) -> Route:
        """Return the route that asks Marway the same: no router's prefix, the model and version as Marway knows them.

        Args:
            model: Its name there.
            version: Its version there.
            unnamed: The label or version that a path without one has to name; None where PROD is meant, which need not
                be named.
        """
        named = version if self.version is not None else unnamed if self.label is None else None
        return replace(self, prefix="", model=model, version=named)


def route_of(path: str) -> Route | None:
    """Return what a path, or a whole URL, asks for; None where that is no prediction of a known protocol."""
    parts = urlsplit(path)
    for begin in _BEGINS.finditer(parts.path):
        for protocol, pattern in _ROUTES:
            found = pattern.fullmatch(parts.path, begin.end())
            if found is None:
                continue
            groups = {name: None if text is None else unquote(text) for name, text in found.groupdict().items()}
            return Route(
                protocol,
                str(groups["model"]),
                groups["version"],
                groups.get("label"),
                str(groups["verb"]),
                prefix=parts.path[: begin.start()],
                rest=groups["rest"] or "" if protocol == "torchserve" else "",
                query=parts.query,
            )
    return None


def default_route(protocol: Protocol, model: str, version: str | None = None) -> Route:
    """Return where a model is asked for a prediction by a protocol."""
    return Route(protocol, model, version, verb=_VERBS[protocol])
