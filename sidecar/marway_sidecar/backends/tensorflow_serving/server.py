"""TensorFlow Serving behind the `ModelServer` interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from marway.deadline import Deadline
from marway.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LoadFailed,
    MarwayError,
    ModelError,
    RuntimeDown,
    Unimplemented,
    clip,
)
from marway.refs import new_ulid
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import (
    Description,
    NotLoaded,
    ServedModel,
    ServerInfo,
    ServerStatus,
    WorkerStatus,
)
from marway_sidecar.backends.calls import each_alone
from marway_sidecar.backends.model_directory import bundle_of
from marway_sidecar.backends.tensorflow_serving.classify import classify
from marway_sidecar.backends.tensorflow_serving.model_list import NUMBER, ModelList
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_serving_pb2 as pb
from marway_sidecar.backends.tensorflow_serving.requests import (
    DEFAULT_SIGNATURE,
    Served,
    asked_by,
    description,
    wants_description,
)
from marway_sidecar.backends.tensorflow_serving.transport import Failed, Transport
from marway_sidecar.errors import about

__all__ = ["SERVES", "TensorFlowServing"]

SERVES: Final = frozenset({"tensorflow-serving"})

_ASK_S: Final = 30.0
_LOOK_S: Final = 0.05
_GONE_S: Final = 30.0
_NOBODY: Final = "marway-asks-whether-you-answer"
_AVAILABLE: Final = pb.ModelVersionStatus.AVAILABLE
_ENDED: Final = (pb.ModelVersionStatus.END,)
_WHY: Final = "in the process of TensorFlow Serving, which does not say what a model takes"


class TensorFlowServing:
    """One running TensorFlow Serving.

    Args:
        transport: How it is asked.
        models: What it is to serve; None for one that somebody else manages.
        concurrency: How many calls of a version are under way at once.
    """

    batches = False

    def __init__(self, transport: Transport, models: ModelList | None, *, concurrency: int) -> None:
        self.serves = SERVES
        self.info = ServerInfo(new_ulid(), {"tensorflow-serving": ""})  # it does not say which version it is
        self._transport = transport
        self._models = models
        self._concurrency = concurrency
        self._begun = models is None
        self._loaded: dict[str, Served] = {}
        self.refusal: str | None = None
        """Why it cannot be used though it answers."""

    async def is_same(self, *, timeout_s: float) -> bool:
        try:
            if not self._begun and self._models is not None:
                await self._models.begin(timeout_s=timeout_s)
                self._begun = True
            # One that was restarted lost all of them: the first tells it.
            for server_name, served in list(self._loaded.items())[:1]:
                return await self._has(served, timeout_s) or server_name not in self._loaded
            await self._transport.status(_NOBODY, timeout_s=timeout_s)
        except Failed as exc:
            error = _refused("say what it has" if self._begun else "take a list of models", exc)
            self.refusal = error.message
            raise error from exc
        return True

    async def load(self, model: ServedModel) -> Description:
        served = self._loaded.get(model.server_name)
        if served is None or not await self._is_there(served):
            served = await (self._found(model) if self._models is None else self._added(model, self._models))
            self._loaded[model.server_name] = served
        return self._description(model)

    async def unload(self, model: ServedModel) -> None:
        served = self._loaded.pop(model.server_name, None)
        if self._models is None:
            return
        try:
            await self._models.remove(model.server_name)
            if served is not None:
                await self._gone(served)
        except Failed as exc:
            raise _refused(f"unload {model.name} {model.version}", exc) from exc
        await self._models.forget(model.server_name)

    async def scale(self, model: ServedModel, workers: int) -> Description:
        return self._description(model)  # it keeps its own threads

    async def describe(self, model: ServedModel) -> Description | None:
        served = self._loaded.get(model.server_name)
        return self._description(model) if served is not None and await self._is_there(served) else None

    async def status(self) -> ServerStatus:
        there = {name for name, served in list(self._loaded.items()) if await self._is_there(served)}
        workers = tuple(WorkerStatus(0, name, "plain", _WHY, 0) for name in sorted(there))
        return ServerStatus(frozenset(there), workers, 0)

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        return await each_alone(lambda row: self._answer(model, row, deadline), rows)

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        yield await self._answer(model, row, deadline)  # it answers one request with one response

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _answer(self, model: ServedModel, row: Row, deadline: Deadline) -> Answer:
        served = self._loaded.get(model.server_name)
        if served is None:
            raise about(model, NotLoaded(f"TensorFlow Serving does not have {model.name} {model.version}"))
        within_s = deadline.left_s()
        if within_s <= 0:
            raise about(model, DeadlineExceeded("the deadline passed before the model was asked"))
        if wants_description(row):
            return description(served)
        try:
            asked = asked_by(row, served)
            name = asked.request.model_spec.signature_name or DEFAULT_SIGNATURE
            signature = served.signatures.get(name)
            response = await self._transport.predict(asked.request, signature, timeout_s=within_s)
            return asked.answer(response, model)
        except Failed as exc:
            raise classify(exc, model) from exc
        except (InvalidRequest, ModelError, Unimplemented) as exc:
            about(model, exc)
            raise

    async def _added(self, model: ServedModel, models: ModelList) -> Served:
        title = f"{model.name} {model.version}"
        try:
            await models.add(model, "tensorflow-serving")
            try:
                return await self._with_signatures(Served(model.server_name, NUMBER))
            except BaseException:
                await models.remove(model.server_name)
                await models.forget(model.server_name)
                raise
        except Failed as exc:
            why = clip(await self._why(model.server_name) or exc.text, 500)
            if exc.code == "DEADLINE_EXCEEDED":
                why = (
                    f"TensorFlow Serving did not have it within {model.load_timeout_s:g} s; started with "
                    "--max_num_load_retries=0 it says at once why a model does not load"
                )
            raise about(model, LoadFailed(f"{title} cannot be loaded: {why}")) from exc

    async def _why(self, server_name: str) -> str | None:
        """Return why a version did not load; some servers say that of its state alone."""
        try:
            statuses = await self._transport.status(server_name, timeout_s=_ASK_S)
        except (Failed, RuntimeDown):
            return None
        return next((each.status.error_message for each in statuses if each.status.error_message), None)

    async def _found(self, model: ServedModel) -> Served:
        """Return a version that somebody else's server has.

        Raises:
            LoadFailed: It has not.
        """
        title = f"{model.name} {model.version}"
        manifest = await asyncio.to_thread(bundle_of, model, "tensorflow-serving")
        name = manifest.server_model or model.name
        try:
            statuses = await self._transport.status(name, timeout_s=_ASK_S)
            numbers = sorted(each.version for each in statuses if each.state == _AVAILABLE)
            wanted = next((number for number in numbers if str(number) == model.version), None)
            if wanted is not None:
                return await self._with_signatures(Served(name, wanted))
        except Failed as exc:
            raise about(model, LoadFailed(f"{title} cannot be served: {clip(exc.text, 300)}")) from exc
        has = f"versions {', '.join(map(str, numbers))}" if numbers else "no version"
        raise about(
            model,
            LoadFailed(
                f"{title} cannot be served: the TensorFlow Serving, which Marway does not manage, has {has} of "
                f"{name!r}, and not {model.version}"
            ),
        )

    async def _with_signatures(self, served: Served) -> Served:
        found = await self._transport.signatures(served.spec, timeout_s=_ASK_S)
        return Served(served.name, served.number, dict(found.signature_def))

    async def _has(self, served: Served, timeout_s: float) -> bool:
        statuses = await self._transport.status(served.name, timeout_s=timeout_s)
        return any(each.version == served.number and each.state == _AVAILABLE for each in statuses)

    async def _is_there(self, served: Served) -> bool:
        try:
            return await self._has(served, _ASK_S)
        except Failed as exc:
            raise _refused("say what it has", exc) from exc

    async def _gone(self, served: Served) -> None:
        """Return when the server has given back a version's memory, or does not say so for long."""
        deadline = Deadline.after(_GONE_S)
        while deadline.left_s() > 0:
            statuses = await self._transport.status(served.name, timeout_s=_ASK_S)
            if all(each.state in _ENDED for each in statuses if each.version == served.number):
                return
            await asyncio.sleep(_LOOK_S)

    def _description(self, model: ServedModel) -> Description:
        return Description(model.version, 1, 1, calls_per_worker=self._concurrency, workers_max=1, scales=False)


def _refused(what: str, exc: Failed) -> MarwayError:
    return MarwayError(f"TensorFlow Serving would not {what}: {clip(exc.text, 200)}")
