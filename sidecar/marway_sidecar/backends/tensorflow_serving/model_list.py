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

__all__ = ["NUMBER", "ModelList"]

logger = logging.getLogger(__name__)

NUMBER: Final = 1
"""The version's number in the server, where each version of Marway's is a model of its own."""
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

    async def add(self, model: ServedModel, backend: str) -> None:
        """Have the server load a version, and return once it has.

        Raises:
            LoadFailed: It is no SavedModel, or the server cannot load it; nothing of it is left.
            Failed: The server says why; the list is as before, and the files are gone.
            RuntimeDown: It does not answer.
        """
        async with self._changing:
            await asyncio.to_thread(self._placed, model, backend)
            config = pb.ModelConfig(
                name=model.server_name,
                base_path=f"{self._base_path}/{model.server_name}",
                model_platform=_PLATFORM,
            )
            config.model_version_policy.specific.versions.append(NUMBER)
            if not self._configs:
                await self._send(_CHANGE_S)  # it may be another that was started since
            self._configs[model.server_name] = config
            try:
                await self._send(model.load_timeout_s)
            except BaseException:
                # One that failed stays on the server's list, and would hold up the next.
                await self._removed(model.server_name)
                raise

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

    def _placed(self, model: ServedModel, backend: str) -> None:
        bundle_of(model, backend)
        # The server looks for versions of a model in directories whose names are numbers.
        files = self._directory.place(model, below=str(NUMBER))
        if not any((files / name).is_file() for name in _FILES):
            self._directory.remove(model.server_name)
            title = f"the bundle of {model.name} {model.version}"
            raise about(model, LoadFailed(f"{title} has no SavedModel: pack a directory with a {_FILES[0]}"))
