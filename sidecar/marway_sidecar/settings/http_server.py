"""Settings about a model server that is asked over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from marway.settings import ComponentSettings

__all__ = ["HttpServerSettings"]

_MIB = 1024 * 1024


def _names(given: Any) -> Any:
    """Return names that stand in one text with commas between them, as an environment variable has them."""
    return tuple(each.strip() for each in given.split(",") if each.strip()) if isinstance(given, str) else given


class HttpServerSettings(ComponentSettings):
    """Where it is, and how it is asked. In URLs, `{model}`, `{version}` and `{server_name}` (the version's id) are
    those of the version.
    """

    http_predict: str | None = None
    """URL of predictions, such as http://127.0.0.1:3000/{model}/predict. In it `{path}` is what follows the version in
    a caller's path."""

    http_method: Literal["POST", "PUT", "PATCH", "GET"] = "POST"
    """Method of predictions."""

    http_headers: Mapping[str, str] = {}
    """Headers of each request to the server, over those of callers: a key that it wants, for instance."""

    http_health: str | None = None
    """URL that is answered with 2xx while the server is well. Without it a connection to the server has to do."""

    http_ready: str | None = None
    """URL that is answered with 2xx while the server has a version. Without it the server is taken to have what it was
    told to load, or what `http_serves` says."""

    http_load: str | None = None
    """URL that is posted to for a version to be loaded, with a JSON object of its names and, with `http_models`, its
    `directory`; another method may stand before it, as in "PUT http://…". Needs `http_unload` and `http_ready`."""

    http_unload: str | None = None
    """URL that is sent a DELETE for a version to be unloaded; another method may stand before it."""

    http_models: Path | None = None
    """Directory, shared with the server and used by this pod alone, in which each loaded version's files lie below its
    id, `{server_name}`. Unset, nothing of an archive is unpacked."""

    http_serves: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = ()
    """What the server has, as `model/version`, or `model` for all its versions: in a list or with commas between them.
    Needed where no URL tells versions apart; other versions are then for other pods."""

    http_openai: str | None = None
    """Base URL of OpenAI's API in the server, such as http://127.0.0.1:8001/v1."""

    http_openai_model: str | None = None
    """What that API calls the model. Unset: what the version's bundle says, else the model's name."""

    http_concurrency: int = Field(32, ge=1)
    """Requests that the server is sent at once for one version; more wait in the sidecar's queue."""

    http_max_answer_bytes: int = Field(64 * _MIB, ge=1)
    """Largest answer that is taken whole, bytes. Answers in pieces may be of any size."""

    http_connect_timeout_s: float = Field(2.0, gt=0)
    """Time to open a connection to the server, seconds. It is near: in the pod, or one hop away."""

    http_idle_s: float = Field(1.5, gt=0)
    """How long an idle connection is kept, seconds. Less than any usual server keeps it (gunicorn 2, uvicorn 5), so
    that none is used in the moment in which the server closes it."""

    http_probe_interval_s: float = Field(1.0, gt=0)
    """How often the server is asked whether it is well, seconds: that soon a dead or restarted one is noticed."""

    http_probe_timeout_s: float = Field(5.0, gt=0)
    """How long it may take to answer before it counts as down, seconds."""
