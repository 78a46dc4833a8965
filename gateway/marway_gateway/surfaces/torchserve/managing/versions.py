"""The versions that the management API is about: found, published, and what is written of them in the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from marway.errors import LabelNotFound
from marway.records import VersionRecord
from marway.refs import DEFAULT_LABEL, check_version
from marway.resolve.resolved import Resolved
from marway_gateway.admin.parameters import Caller
from marway_gateway.gateway import Gateway
from marway_gateway.surfaces.torchserve.managing.parameters import Parameters
from marway_gateway.surfaces.torchserve.managing.publishing import publish
from marway_gateway.surfaces.torchserve.managing.refusals import Refused
from marway_gateway.surfaces.torchserve.managing.sources import Sources

__all__ = ["NOTE", "Versions"]

NOTE: Final = "through TorchServe's management API"
"""Why, in the history."""


class Versions:
    """Versions in the registry.

    Args:
        gateway: Its parts.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._sources = Sources(
            gateway.settings.torchserve_management_sources,
            registry_url=gateway.reader.registry.url,
            max_bytes=gateway.settings.torchserve_management_archive_bytes,
        )

    async def resolved(self, model: str, version: str | None) -> Resolved:
        """Return a version, by its name or a label of it; without one that at `PROD`.

        Raises:
            NotFound: There is none.
        """
        try:
            return await self._gateway.resolver.resolve(model, version)
        except LabelNotFound as exc:
            if version is not None:
                raise
            raise LabelNotFound(
                f"{model} has no default version: make one by PUT /models/{model}/VERSION/set-default", model=model
            ) from exc

    async def default(self, name: str) -> str | None:
        """Return the version at `PROD` as the registry has it now, or None."""
        writer = self._gateway.writer
        state = await writer.call(writer.registry.state, name)
        return state.labels.get(DEFAULT_LABEL)

    async def published(self, given: Parameters, caller: Caller, upload: Path | None) -> VersionRecord:
        """Return the version that a registration is about, published if it was not.

        Args:
            given: Its parameters; of these `url`, `model_name` and `handler` are looked at.
            caller: Who asks.
            upload: The archive that it carries, or None.

        Raises:
            Refused, MarwayError: There is no such version or archive, or it cannot be published.
        """
        url, name, handler = given.text("url"), given.text("model_name"), given.text("handler")
        if upload is None and url is None:
            raise Refused(400, "BadRequestException", "Parameter url is required.")
        if upload is None and not url:
            raise Refused(404, "ModelNotFoundException", "empty url")
        reference = self._sources.reference(url) if upload is None and url else None
        if reference is not None:
            record = (await self._gateway.resolver.resolve(reference.name, reference.selector)).record
            if name and name != record.name:
                message = f"{record.name} {record.version} keeps its name: leave model_name {name[:60]!r} out"
                raise Refused(400, "BadRequestException", message)
            if handler:
                given.without_effect(handler="a version that is published does not change")
            return record
        async with self._archive(upload, url or "") as archive:
            record = await publish(
                archive,
                registry=self._gateway.writer.registry.url,
                model_name=name or None,
                handler=handler or None,
                publisher=caller.by,
            )
        await self._gateway.resolver.refresh(record.name)
        return record

    @asynccontextmanager
    async def _archive(self, upload: Path | None, url: str) -> AsyncIterator[Path]:
        if upload is not None:
            yield upload
            return
        async with self._sources.archive(url) as path:
            yield path

    async def set(self, record: VersionRecord, caller: Caller, *, zero: bool = False, **fields: int | None) -> None:
        """Override serving settings of a version with those that are given; without ``zero`` only by more than 0."""
        changes = {name: value for name, value in fields.items() if value is not None and (value > 0 or zero)}
        if changes:
            writer = self._gateway.writer
            await writer.change(
                writer.registry.set_serving,
                record.name,
                version=check_version(record.version),
                set_fields=changes,
                note=NOTE,
                by=caller.by,
            )

    async def set_first(self, record: VersionRecord, caller: Caller) -> None:
        """Point `PROD` at a model's first version without loading it: nobody is served by it yet."""
        writer = self._gateway.writer
        await writer.change(
            writer.registry.release,
            record.name,
            record.version,
            label=DEFAULT_LABEL,
            note=NOTE,
            require_proof=True,
            unproved_first=True,
            by=caller.by,
        )
