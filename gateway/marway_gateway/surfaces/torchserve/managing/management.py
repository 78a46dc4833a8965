"""The calls of TorchServe's management API, the same for REST and gRPC, over the registry and the pods.

What TorchServe calls registered is here a version that is published; what its default is, is at `PROD`; the number of
workers is a serving setting. So what a call changes is in the model's history, and holds for every gateway and pod.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from marway.deadline import Deadline
from marway.refs import DEFAULT_LABEL, check_model_name
from marway_gateway.admin.parameters import Caller
from marway_gateway.gateway import Gateway
from marway_gateway.surfaces.torchserve.describe import customized_metadata
from marway_gateway.surfaces.torchserve.managing.documents import LIMIT, described, having, in_gateway, page
from marway_gateway.surfaces.torchserve.managing.parameters import Parameters
from marway_gateway.surfaces.torchserve.managing.refusals import Refused
from marway_gateway.surfaces.torchserve.managing.versions import NOTE, Versions
from marway_gateway.surfaces.torchserve.managing.workers import Workers

__all__ = ["Done", "Management"]

_WORKING: Final = "Processing worker updates..."
_RUNTIMES: Final = frozenset({"python", "python3", "lsp"})


class Done(NamedTuple):
    """What a change says: its status over HTTP, and its words."""

    status: int
    words: str


class Management:
    """Lists, describes, registers, scales and unregisters versions.

    Args:
        gateway: Its parts.

    Attributes:
        settings: The gateway's.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.settings = gateway.settings
        self._gateway = gateway
        self._workers = Workers(gateway)
        self._versions = Versions(gateway)

    async def list_models(self, given: Parameters) -> dict[str, Any]:
        """Return a page of models, of which TorchServe has 100 at most."""
        limit, start = given.number("limit"), given.number("next_page_token")
        limit = LIMIT if limit is None or not 0 < limit <= LIMIT else limit
        reader = self._gateway.reader
        return await reader.call(page, reader.registry, limit, max(0, start or 0))

    async def describe(self, model: str, version: str | None, given: Parameters) -> list[dict[str, Any]]:
        """Return what is known of a version, of the default one, or of `all`.

        Raises:
            NotFound: There is no such version.
            Refused: Its handler does not describe its model.
        """
        customized = given.flag("customized", default=False)
        if version == "all":
            reader = self._gateway.reader
            name = await reader.call(reader.registry.find, check_model_name(model))
            versions = (await reader.call(reader.registry.summary, name)).versions
            found = [await self._gateway.resolver.resolve(name, each) for each in versions]
        else:
            found = [await self._versions.resolved(model, version)]
        documents = []
        for each in found:
            statuses = having(self._gateway.pods, each.record)
            queue_limit = self.settings.queue_limit
            document = described(each.record, each.serving, statuses, queue_limit=queue_limit)
            if customized:
                document["customizedMetadata"] = await customized_metadata(self._gateway, each.record)
            documents.append(document)
        return documents

    async def register(
        self, given: Parameters, caller: Caller, *, upload: Path | None, synchronous: bool, deadline: Deadline | None
    ) -> Done:
        """Publish an archive, or take a version that is published, and load it; the first of a model becomes `PROD`.

        Args:
            given: TorchServe's parameters; `url` as `Sources` has it.
            caller: Who asks.
            upload: The archive that the call carries, or None.
            synchronous: Whether the answer waits for workers where the call does not say it.
            deadline: Of the load; by default what it may take.

        Raises:
            Refused, MarwayError: It is not registered, or does not load.
        """
        runtime = given.text("runtime")
        if runtime and runtime.lower() not in _RUNTIMES:
            raise Refused(400, "BadRequestException", f"Invalid RuntimeType value: {runtime[:60]}")
        record = await self._versions.published(given, caller, upload)
        if self._workers.has(record):
            raise Refused(
                409,
                "ConflictStatusException",
                f"Model version {record.version} is already registered for model {record.name}",
            )
        workers = given.number("initial_workers")
        await self._versions.set(
            record,
            caller,
            min_workers=workers,
            max_batch_rows=given.number("batch_size"),
            predict_timeout_s=given.number("response_timeout"),
            load_timeout_s=given.number("startup_timeout"),
        )
        given.without_effect(
            max_batch_delay="rows wait only while all workers are busy",
            queue_timeout="the caller's deadline and the gateway's queue_timeout_s bound that",
            s3_sse_kms="the registry's store is set up where it is named",
        )
        synchronous = given.flag("synchronous", default=synchronous)
        about = f'Model "{record.name}" Version: {record.version} registered with'
        resolved = await self._gateway.resolver.resolve(record.name, record.version)
        first = await self._versions.default(record.name) is None
        if workers is not None and workers <= 0:
            if first:
                await self._versions.set_first(record, caller)
            return Done(
                200, given.phrase(f"{about} 0 initial workers. Use scale workers API to add workers for the model.")
            )
        start = partial(self._workers.start, record, resolved.serving, default=first, caller=caller, deadline=deadline)
        if not synchronous:
            self._workers.later(record, start)
            return Done(202, given.phrase(_WORKING))
        return Done(200, given.phrase(f"{about} {await start()} initial workers"))

    async def scale(
        self, model: str, version: str | None, given: Parameters, caller: Caller, *, deadline: Deadline | None
    ) -> Done:
        """Set how many workers a version has on each of its pods, and load it; 0 unloads it.

        Raises:
            Refused, MarwayError: The numbers cannot be, or workers do not start.
        """
        least = given.number("min_worker")
        least = 1 if least is None else least
        most = given.number("max_worker")
        if most is not None and most < least:
            raise Refused(400, "BadRequestException", "max_worker cannot be less than min_worker.")
        if least < 0:
            raise Refused(400, "BadRequestException", "min_worker cannot be less than 0.")
        given.without_effect(
            number_gpu="a worker is given a GPU by what its pod has (`marway pods` shows it)",
            timeout="requests in flight are finished in any case",
        )
        synchronous = given.flag("synchronous", default=False)
        before = await self._versions.resolved(model, version)
        record = before.record
        if in_gateway(record):
            raise Refused(
                400,
                "BadRequestException",
                f"{record.name} {record.version} is a {record.backend}, which gateways answer for: it has no workers",
            )
        if most is None and before.serving.max_workers is not None:
            most = max(least, before.serving.max_workers)
        await self._versions.set(record, caller, zero=True, min_workers=least, max_workers=most or None)
        serving = (await self._gateway.resolver.resolve(record.name, record.version)).serving
        if least == 0:
            job: Callable[[], Awaitable[object]] = partial(self._workers.stop, record, deadline)
        else:
            job = partial(self._workers.start, record, serving, default=False, caller=caller, deadline=deadline)
            self._workers.later(record, partial(self._workers.notify, record))
        if not synchronous:
            self._workers.later(record, job)
            return Done(202, given.phrase(_WORKING))
        await job()
        of_version = "" if version is None else f", version: {record.version}"
        return Done(200, given.phrase(f"Workers scaled to {least} for model: {record.name}{of_version}"))

    async def set_default(
        self, model: str, version: str, given: Parameters, caller: Caller, *, deadline: Deadline | None
    ) -> Done:
        """Release a version to `PROD`: a pod loads, proves and compares it before the label moves.

        Raises:
            Refused, MarwayError: As a release; the label stays where it was.
        """
        resolved = await self._versions.resolved(model, version)
        record = resolved.record
        await self._workers.start(record, resolved.serving, default=True, caller=caller, deadline=deadline)
        words = f'Default version successfully updated for model "{record.name}" to "{record.version}"'
        return Done(200, given.phrase(words))

    async def unregister(
        self, model: str, version: str | None, given: Parameters, caller: Caller, *, deadline: Deadline | None
    ) -> Done:
        """Unload a version, and delete it for good where `torchserve_management_unregister` is `tombstone`.

        Raises:
            Refused: It is the default and is to be deleted, and there are others.
            MarwayError: It is part of a rollout, or protected, or a pod does not let it go.
        """
        given.without_effect(timeout="requests in flight are finished in any case")
        if given.text("synchronous") is not None and not given.flag("synchronous", default=True):
            given.without_effect(synchronous="the answer comes when it is done")
        record = (await self._versions.resolved(model, version)).record
        deleted = self.settings.torchserve_management_unregister == "tombstone"
        if deleted:
            writer = self._gateway.writer
            summary = await writer.call(writer.registry.summary, record.name)
            is_default = summary.state.labels.get(DEFAULT_LABEL) == record.version
            if is_default and len(summary.versions) > 1:
                raise Refused(
                    403,
                    "InvalidModelVersionException",
                    f"Cannot remove default version for model {record.name}: make another the default first",
                )
            await writer.change(
                writer.registry.delete,
                record.name,
                record.version,
                note=NOTE,
                forced=is_default,
                by=caller.by,
                op_id=caller.op_id,
            )
        if not deleted or not in_gateway(record):
            await self._workers.stop(record, deadline)
        return Done(200, given.phrase(f'Model "{record.name}" unregistered'))
