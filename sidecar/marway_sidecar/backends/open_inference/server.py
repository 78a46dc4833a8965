"""One server of the Open Inference Protocol behind the `ModelServer` interface."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Final

from marway.deadline import Deadline
from marway.errors import InvalidRequest, LoadFailed, MarwayError, RuntimeDown
from marway.refs import new_ulid
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import (
    Description,
    NotLoaded,
    ServedModel,
    ServerInfo,
    ServerStatus,
    WorkerDied,
    WorkerStatus,
)
from marway_sidecar.backends.calls import each_alone, whole_answer
from marway_sidecar.backends.open_inference.classify import reason_of
from marway_sidecar.backends.open_inference.files import Repository
from marway_sidecar.backends.open_inference.holdings import Holdings, ready
from marway_sidecar.backends.open_inference.others import found_there
from marway_sidecar.backends.open_inference.rows import Asked, answer_of, asked, described, piece_of
from marway_sidecar.backends.open_inference.wire import Known, Refused, Wire, signature_of
from marway_sidecar.errors import about

__all__ = ["SERVES", "OpenInferenceServer"]

logger = logging.getLogger(__name__)

SERVES: Final = frozenset({"open-inference"})

_REASON: Final = "its model server keeps its own workers"


class OpenInferenceServer:
    """One running server.

    Args:
        management: The way by which models are loaded and looked at.
        calls: The way of predictions; may be the same.
        repository: Its model repository; None where somebody else manages it.
        calls_per_worker: Requests of a version that it is given at once.
        in_pieces: Whether ``calls`` carries what Triton answers in pieces.
    """

    batches = False

    def __init__(
        self, management: Wire, calls: Wire, repository: Repository | None, *, calls_per_worker: int, in_pieces: bool
    ) -> None:
        self.serves = SERVES
        self.info = ServerInfo(new_ulid())
        self._management = management
        self._calls = calls
        self._repository = repository
        self._calls_per_worker = calls_per_worker
        self._in_pieces = in_pieces
        self._known: dict[str, Known] = {}
        self._holdings = Holdings(management, self._known, managed=repository is not None)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._mending: dict[str, asyncio.Task[None]] = {}

    async def is_same(self, *, timeout_s: float) -> bool:
        before = set(self._known)
        if not self.info.versions:
            await self._meet(timeout_s=timeout_s)
        held = await self._holdings.held(timeout_s=timeout_s)
        for name in before & self._known.keys():
            known = self._known[name]
            if name not in self._mending and not self._locks[name].locked() and not ready(held, known):
                return False
        return True

    async def load(self, model: ServedModel) -> Description:
        async with self._locks[model.server_name]:
            found = await self.describe(model)
            if found is not None:
                return found
            if self._repository is None:
                known = await found_there(self._management, model)
            else:
                known = await self._loaded(self._repository, model)
            if known.configured.decoupled and not self._in_pieces:
                await self._forget(model)
                raise about(model, LoadFailed(_needs_grpc(model)))
            self._known[model.server_name] = known
            return self._description(known)

    async def unload(self, model: ServedModel) -> None:
        async with self._locks[model.server_name]:
            if (task := self._mending.get(model.server_name)) is not None:
                await asyncio.wait({task})  # Triton never gives back a model whose worker is dead
            known = self._known.pop(model.server_name, None)
            if self._repository is None:
                return
            try:
                await self._forget(model)
            except MarwayError:
                if known is not None:
                    self._known[model.server_name] = known
                raise

    async def scale(self, model: ServedModel, workers: int) -> Description:
        found = await self.describe(model) if workers == 1 else None
        if found is None:
            message = f"{model.name} {model.version} has the workers that its server gives it: {workers} cannot be had"
            raise about(model, MarwayError(message))
        return found

    async def describe(self, model: ServedModel) -> Description | None:
        known = self._known.get(model.server_name)
        if known is None or not ready(await self._holdings.held(), known):
            return None
        return self._description(known)

    async def status(self) -> ServerStatus:
        held = await self._holdings.held()
        names = sorted(name for name, known in self._known.items() if name in self._mending or ready(held, known))
        workers = tuple(WorkerStatus(0, name, "plain", _REASON, 0) for name in names)
        return ServerStatus(frozenset(names), workers, 0)

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        return await each_alone(lambda row: self._one(model, row, deadline), rows)

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        known = await self._ready_to_ask(model, deadline)
        what, begun = asked(known, row), False
        try:
            async with aclosing(self._calls.stream(known, what.request, deadline)) as pieces:
                async for piece in pieces:
                    begun = True
                    yield piece_of(known, what, piece)
        except WorkerDied:
            self._mend(known)
            raise
        if not begun:  # a decoupled model may have nothing to say
            yield piece_of(known, Asked(what.request), b"")

    async def aclose(self) -> None:
        for task in self._mending.values():
            task.cancel()
        await asyncio.gather(*self._mending.values(), return_exceptions=True)
        await self._calls.aclose()
        await self._management.aclose()

    async def _one(self, model: ServedModel, row: Row, deadline: Deadline) -> Answer:
        if row.headers.get("describe"):
            known = await self._ready_to_ask(model, deadline)
            return described(known)
        if model.streaming:
            return await whole_answer(self.predict_stream(model, row, deadline))
        known = await self._ready_to_ask(model, deadline)
        what = asked(known, row)
        try:
            return answer_of(known, what, await self._calls.infer(known, what.request, deadline))
        except WorkerDied:
            self._mend(known)
            raise
        except InvalidRequest as exc:
            raise about(model, exc) from exc.__cause__

    async def _ready_to_ask(self, model: ServedModel, deadline: Deadline) -> Known:
        """Return what is known of a version, once it is not being mended."""
        task = self._mending.get(model.server_name)
        if task is not None:
            await asyncio.wait({task}, timeout=max(0.0, deadline.left_s()))
        known = self._known.get(model.server_name)
        if known is None:
            raise about(model, NotLoaded(f"the model server does not have {model.name} {model.version}"))
        return known

    def _mend(self, known: Known) -> None:
        """Load a version anew whose worker died: Triton 2.51 goes on refusing every call of it."""
        name = known.model.server_name
        if self._repository is not None and name not in self._mending and self._known.get(name) is known:
            self._mending[name] = asyncio.create_task(self._reload(known), name=f"mend {name}")

    async def _reload(self, known: Known) -> None:
        model = known.model
        try:
            assert self._repository is not None
            await asyncio.to_thread(self._repository.touch, model.server_name)  # what is as it was is not loaded anew
            await self._management.load(known.called, timeout_s=model.load_timeout_s)
            logger.info("%s %s was loaded anew, as its worker had died", model.name, model.version)
        except (MarwayError, Refused, OSError) as exc:
            logger.warning("%s %s cannot be loaded anew: %s", model.name, model.version, exc)
            self._known.pop(model.server_name, None)  # so it counts as lost, and is loaded by its next request
        finally:
            self._mending.pop(model.server_name, None)

    async def _meet(self, *, timeout_s: float) -> None:
        """Ask the server what it is, and have it let go of what a sidecar that died left in it."""
        try:
            facts = await self._management.facts(timeout_s=timeout_s)
            if self._calls is not self._management:
                await self._calls.facts(timeout_s=timeout_s)
        except Refused as exc:
            raise RuntimeDown(f"the model server does not say what it is: {exc.text}") from exc
        if self._repository is not None:
            held = await self._holdings.held(timeout_s=timeout_s)
            for placed in await asyncio.to_thread(self._repository.left):
                model = ServedModel(placed.server_name, placed.name, placed.version, Path(), 1, timeout_s, timeout_s)
                if placed.server_name in held:
                    logger.warning("unloading %s %s, which another sidecar left", placed.name, placed.version)
                    try:
                        async with asyncio.timeout(timeout_s):
                            await self._holdings.given_back(model, placed.server_name)
                    except (MarwayError, TimeoutError):
                        logger.warning("the server goes on holding it; a restart of the server frees its memory")
                await asyncio.to_thread(self._repository.remove, placed.server_name)
        versions = {"open-inference": f"{facts.name} {facts.version}".strip(), facts.name: facts.version}
        self.info = replace(self.info, versions=versions)

    async def _loaded(self, repository: Repository, model: ServedModel) -> Known:
        await asyncio.to_thread(repository.place, model)
        called = model.server_name
        try:
            await self._management.load(called, timeout_s=model.load_timeout_s)
            metadata = await self._management.metadata(called, "")
            if metadata is None:
                raise Refused(404, await self._why_not(called))
            configured = await self._management.configured(called, "")
        except Refused as exc:
            with contextlib.suppress(MarwayError):
                await self._forget(model)
            why = reason_of(exc.text, called, f"{model.name} {model.version}")
            raise about(model, LoadFailed(f"{model.name} {model.version} cannot be loaded: {why}")) from exc
        except BaseException:
            with contextlib.suppress(MarwayError):
                await self._forget(model)
            raise
        platform = str(metadata.get("platform") or "")
        return Known(model, called, "", signature_of(metadata), platform, configured)

    async def _why_not(self, called: str) -> str:
        entries = (await self._management.index()).get(called, ())
        return next((each.reason for each in entries if each.reason), "the server took it and does not have it")

    async def _forget(self, model: ServedModel) -> None:
        """Have the server let go of a version, and remove its files once it has."""
        assert self._repository is not None
        await self._holdings.given_back(model, model.server_name)
        await asyncio.to_thread(self._repository.remove, model.server_name)

    def _description(self, known: Known) -> Description:
        return Description(
            version=known.model.version,
            ready_workers=1,
            workers=1,
            calls_per_worker=self._calls_per_worker,
            in_pieces=known.configured.decoupled,
            workers_max=1,
            scales=False,
        )


def _needs_grpc(model: ServedModel) -> str:
    return (
        f"{model.name} {model.version} answers in pieces (decoupled), which Triton sends over gRPC alone: set "
        "open_inference_grpc on this pod"
    )
