"""What a server is asked about itself: whether it is well, and which versions it has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from yarl import URL

from marway.errors import RuntimeDown, Unavailable, clip
from marway_sidecar.backends.http_server.addresses import Addresses
from marway_sidecar.backends.http_server.connection import Connection
from marway_sidecar.errors import about

__all__ = ["TIMEOUT_S", "Known", "Lookups"]

TIMEOUT_S: Final = 30.0
"""For calls that are no predictions and no loads."""
_SHOWN_MAX: Final = 8
"""How many names of models a message has."""


@dataclass(frozen=True, slots=True)
class Known:
    """A version as the server knows it.

    Attributes:
        values: What stands for names in URLs.
        openai_model: What OpenAI's API calls it.
        said_itself: Whether its bundle says so.
    """

    server_name: str
    name: str
    version: str
    values: Mapping[str, str]
    openai_model: str
    said_itself: bool = False

    @property
    def title(self) -> str:
        """The version, for people."""
        return f"{self.name} {self.version}"


class Lookups:
    """Asks one server.

    Args:
        addresses: Where.
        connection: To it.
        serves: What it has, as settings say; nothing for what it is asked for.
    """

    def __init__(self, addresses: Addresses, connection: Connection, serves: Sequence[str]) -> None:
        self._at = addresses
        self._connection = connection
        self._serves = serves

    async def name(self, *, timeout_s: float = TIMEOUT_S) -> str:
        """Return what the server calls itself, or "".

        Raises:
            RuntimeDown: It is not well.
        """
        url = self._at.health
        if url is None:
            await self._connection.reach(self._at.base, timeout_s=timeout_s)
            return ""
        reply = await self._connection.probe(url, timeout_s=timeout_s)
        if not reply.good:
            raise RuntimeDown(f"the model server is not well: {url} answers with status {reply.status}")
        return clip(reply.headers.get("Server", ""), 80)

    async def has(self, version: Known, *, timeout_s: float = TIMEOUT_S) -> bool | None:
        """Return whether the server says that it has a version; None when it has no way of saying it.

        Raises:
            RuntimeDown: It does not answer within ``timeout_s``.
        """
        if self._at.ready is not None:
            return (await self._connection.probe(self._at.ready.url(version.values), timeout_s=timeout_s)).good
        if self._at.openai is not None and self._at.openai_model is None:
            models = await self._openai_models(timeout_s)
            return version.openai_model in models if models else None
        return None

    async def lacks(self, version: Known) -> Unavailable:
        """Return the error of a version that the server says it does not have."""
        if self._at.ready is not None:
            url = self._at.ready.url(version.values)
            return about(version, Unavailable(f"the model server does not have {version.title}: so it says at {url}"))
        models = await self._openai_models(TIMEOUT_S)
        more = "" if len(models) <= _SHOWN_MAX else f" and {len(models) - _SHOWN_MAX} more"
        known = ", ".join(clip(each, 80) for each in models[:_SHOWN_MAX])
        message = (
            f"the model server has no model {version.openai_model!r}, which {version.title} is to be; it has {known}"
            f"{more}: pack the bundle with --server-model, or set http_openai_model"
        )
        return about(version, Unavailable(message))

    def check_served(self, version: Known, others: Sequence[Known]) -> None:
        """Refuse a version that is for another pod's server, or that this one would take for one of ``others``.

        Raises:
            Unavailable: It is; other pods may have it.
        """
        said = self._serves
        if said and version.name not in said and f"{version.name}/{version.version}" not in said:
            have = f"the model server of this pod has {', '.join(said)} (http_serves)"
            raise about(version, Unavailable(f"{have}, and not {version.title}"))
        if self._at.predict is not None or version.said_itself or self._at.openai_model is not None:
            return
        for other in others:
            if other.openai_model == version.openai_model and other.server_name != version.server_name:
                message = (
                    f"{version.title} and {other.title} would be one model, {version.openai_model!r}, to the server: "
                    "pack each with the server's own name for it (--server-model), or unload the other"
                )
                raise about(version, Unavailable(message))

    async def _openai_models(self, timeout_s: float) -> list[str]:
        """Return the models that OpenAI's API lists; none where it lists none, as some servers that have one."""
        assert self._at.openai is not None
        reply = await self._connection.probe(URL(f"{self._at.openai}/models", encoded=True), timeout_s=timeout_s)
        if not reply.good:
            return []
        try:
            return [str(each["id"]) for each in json.loads(reply.body)["data"]]
        except (ValueError, KeyError, TypeError):
            return []
