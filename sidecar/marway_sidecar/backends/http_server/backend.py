"""Finds the server of a pod that is asked over HTTP: its addresses are settings."""

from __future__ import annotations

from yarl import URL

from marway.errors import InvalidSettings
from marway.refs import parse_reference
from marway_sidecar.backends.base import Backend
from marway_sidecar.backends.http_server.addresses import DIRECTORY, PATH, VERSION_NAMES, Addresses, UrlTemplate
from marway_sidecar.backends.http_server.connection import Connection
from marway_sidecar.backends.http_server.server import SERVES, HttpServer
from marway_sidecar.backends.model_directory import ModelDirectory
from marway_sidecar.settings import SidecarSettings

__all__ = ["HttpBackend"]


class HttpBackend(Backend):
    """Any server that is asked over HTTP, with bundles, which may be empty.

    Raises:
        InvalidSettings: They do not say where it is, or not how its versions are told apart.
    """

    serves = SERVES

    def __init__(self, settings: SidecarSettings) -> None:
        super().__init__(settings)
        self.probe_interval_s = settings.http_probe_interval_s
        self.probe_timeout_s = settings.http_probe_timeout_s
        self.addresses = addresses_of(settings)
        self.directory = settings.http_models

    def connect(self) -> HttpServer:
        settings = self.settings
        connection = Connection(
            headers=settings.http_headers,
            connect_timeout_s=settings.http_connect_timeout_s,
            idle_s=settings.http_idle_s,
        )
        directory = None
        if settings.http_models is not None:
            directory = ModelDirectory(settings.http_models, only_looks=self.only_looks)
        return HttpServer(
            self.addresses,
            connection,
            directory,
            serves=settings.http_serves,
            concurrency=settings.http_concurrency,
            max_answer_bytes=settings.http_max_answer_bytes,
        )

    def trouble(self, *, found: bool) -> str:
        return f"the model server does not answer at {self.addresses.health or self.addresses.base}"


def addresses_of(settings: SidecarSettings) -> Addresses:
    """Return where a server is asked for what.

    Raises:
        InvalidSettings: It is not said, or settings do not go together.
    """
    predict = _template(settings, "http_predict", settings.http_method, VERSION_NAMES | {PATH})
    openai = _template(settings, "http_openai", "POST", frozenset())
    asked = predict or openai
    if asked is None:
        raise InvalidSettings(
            "the backend http needs http_predict, the URL of predictions, such as http://127.0.0.1:3000/predict, or "
            "http_openai, the base URL of OpenAI's API, such as http://127.0.0.1:8001/v1"
        )
    if settings.http_openai_model is not None and openai is None:
        raise InvalidSettings("http_openai_model says what OpenAI's API calls the model: http_openai is missing")
    ready = _template(settings, "http_ready", "GET", VERSION_NAMES)
    load = _template(settings, "http_load", "POST", VERSION_NAMES | {DIRECTORY})
    unload = _template(settings, "http_unload", "DELETE", VERSION_NAMES)
    if ready is not None and not ready.tells_versions_apart:
        raise InvalidSettings("http_ready says whether the server has a version: {version} or {server_name} is missing")
    if (load is None) != (unload is None) or (load is not None and ready is None):
        missing = [
            name
            for name, given in (("http_load", load), ("http_unload", unload), ("http_ready", ready))
            if given is None
        ]
        raise InvalidSettings(
            f"http_load, http_unload and http_ready go together: {' and '.join(missing)} is missing; what is loaded "
            "has to be unloaded, and a server that was restarted is known by what it lost"
        )
    if settings.http_models is not None and predict is not None and "server_name" not in predict.names and load is None:
        raise InvalidSettings(
            "http_models puts a version's files below {server_name}, which http_predict does not name, and without "
            "http_load the server is not told of them"
        )
    health = _template(settings, "http_health", "GET", frozenset())
    addresses = Addresses(
        base=URL(asked.text.partition("{")[0]).origin(),
        predict=predict,
        openai=URL(openai.text.rstrip("/"), encoded=True) if openai is not None else None,
        openai_model=settings.http_openai_model,
        health=health.url({}) if health is not None else None,
        ready=ready,
        load=load,
        unload=unload,
    )
    _check_serves(settings, addresses)
    return addresses


def _template(settings: SidecarSettings, name: str, method: str, names: frozenset[str]) -> UrlTemplate | None:
    text = getattr(settings, name)
    return UrlTemplate.parse(name, text, method=method, names=names) if text is not None else None


def _check_serves(settings: SidecarSettings, addresses: Addresses) -> None:
    """See that two versions are never answered by one model."""
    served = [parse_reference(each) for each in settings.http_serves]
    predict = addresses.predict
    if predict is not None and not predict.tells_versions_apart:
        what, by_model = "http_predict has neither {version} nor {server_name} in it", "model" in predict.names
    elif addresses.openai is not None and addresses.openai_model is not None:
        what, by_model = "http_openai_model is one model", False
    else:
        return
    exact = {each.name for each in served if each.selector is not None}
    if not served or len(exact) != len(served) or (len(served) > 1 and not by_model):
        one = "one version of each model" if by_model else "the one version"
        raise InvalidSettings(
            f"{what}, so the server answers all versions alike: name in http_serves {one} that it has, such as "
            'http_serves = ["iris/1.0"]'
        )
