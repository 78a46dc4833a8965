"""What one TensorFlow Serving is to serve: the models of its own list, and versions unpacked into its directory.

It takes a whole list of models at a time, and what is not in that goes. So each change sends all, one after the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from marway.errors import LoadFailed, MarwayError
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.model_directory import ModelDirectory, bundle_of
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_serving_pb2 as pb
from marway_sidecar.backends.tensorflow_serving.transport import Failed, Transport
from marway_sidecar.errors import about

__all__ = ["ModelList", "saved_model_number"]

logger = logging.getLogger(__name__)

_PLATFORM: Final = "tensorflow"
_FILES: Final = ("saved_model.pb", "saved_model.pbtxt")
_CHANGE_S: Final = 30.0


class ModelList:
    """The list of one server.

    Args:
        transport: Its API, which must be gRPC.
        models: The directory shared with it.
        base_path: The same as the server sees it.
        others: Models that are not Marway's, which it goes on serving.
    """

    def __init__(
        self, transport: Transport, models: Path, *, base_path: str, others: Sequence[pb.ModelConfig] = ()
    ) -> None:
        self._transport = transport
        self._directory = ModelDirectory(models)
        self._base_path = base_path.rstrip("/")
        self._others = list(others)
        self._configs: dict[str, pb.ModelConfig] = {}
        self._changing = asyncio.Lock()

    async def begin(self, *, timeout_s: float) -> None:
        """Have the server serve none of Marway's, and remove what dead sidecars left in its directory.

        A server that was started with no models takes its first list in another way, after which one that failed to
        load makes it wait for ever (tensorflow/serving issue 1565): so its first list has none.

        Raises:
            Failed: It takes no list.
            RuntimeDown: It does not answer.
        """
        async with self._changing:
            self._configs.clear()
            await self._send(timeout_s)
            for left in await asyncio.to_thread(self._directory.left):
                await asyncio.to_thread(self._directory.remove, left.server_name)

    async def add(self, model: ServedModel, backend: str) -> int:
        """Have the server load a version, and return its number there once it has.

        Raises:
            LoadFailed: It is no SavedModel, or the server cannot load it; nothing of it is left.
            Failed: The server says why; the list is as before, and the files are gone.
            RuntimeDown: It does not answer.
        """
        async with self._changing:
            number = await asyncio.to_thread(self._placed, model, backend)
            config = pb.ModelConfig(
                name=model.server_name,
                base_path=f"{self._base_path}/{model.server_name}",
                model_platform=_PLATFORM,
            )
            config.model_version_policy.specific.versions.append(number)
            if not self._configs:
                await self._send(_CHANGE_S)  # it may be another that was started since
            self._configs[model.server_name] = config
            try:
                await self._send(model.load_timeout_s)
            except BaseException:
                # One that failed stays on the server's list, and would hold up the next.
                await self._removed(model.server_name)
                raise
            return number

    async def remove(self, server_name: str) -> None:
        """Have the server let go of a version, and remove its files; one that is not there is no error.

        Raises:
            Failed: It takes no list.
            RuntimeDown: It does not answer; the version is off the next list.
        """
        async with self._changing:
            if self._configs.pop(server_name, None) is not None:
                await self._send(_CHANGE_S)

    async def forget(self, server_name: str) -> None:
        """Remove the files of a version that the server has let go of."""
        await asyncio.to_thread(self._directory.remove, server_name)

    async def _removed(self, server_name: str) -> None:
        self._configs.pop(server_name, None)
        try:
            await self._send(_CHANGE_S)
        except (Failed, MarwayError) as exc:
            logger.warning("TensorFlow Serving keeps %s on its list until the next change: %s", server_name, exc)
        await self.forget(server_name)

    async def _send(self, timeout_s: float) -> None:
        models = pb.ModelConfigList(config=[*self._others, *self._configs.values()])
        await self._transport.reload(models, timeout_s=timeout_s)

    def _placed(self, model: ServedModel, backend: str) -> int:
        bundle_of(model, backend)
        files = self._directory.place(model)
        try:
            return saved_model_number(files, model)
        except LoadFailed:
            self._directory.remove(model.server_name)
            raise


def saved_model_number(directory: Path, model: ServedModel) -> int:
    """Return the one version that a model's directory has, by the name of its directory. Blocks.

    Raises:
        LoadFailed: It has none, or several.
    """
    found = sorted(
        int(each.name)
        for each in directory.iterdir()
        if each.name.isdecimal() and each.is_dir() and any((each / file).is_file() for file in _FILES)
    )
    if len(found) == 1:
        return found[0]
    title = f"the bundle of {model.name} {model.version}"
    if found:
        numbers = ", ".join(map(str, found))
        why = f"has the versions {numbers}: a version of Marway's is one of them, so pack each by itself"
    elif any((directory / file).is_file() for file in _FILES):
        why = "is a SavedModel itself: TensorFlow Serving wants it in a directory whose name is a number, such as 1"
    else:
        why = "has no SavedModel: pack a directory that has one in a directory whose name is a number, such as 1"
    raise about(model, LoadFailed(f"{title} {why}"))
