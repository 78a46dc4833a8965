"""Multi Model Server, with a `.mar`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from marway_archiver import publish_archive
from support.kinds.kind import TAKES_S, Kind
from support.servers import Server
from support.servers.mms import MultiModelServer
from support.torchserve import archive

__all__ = ["MmsKind"]

_HANDLER = """\
import time

def text(row):
    given = row.get("body") or row.get("data")
    return given if isinstance(given, str) else bytes(given).decode()

def handle(data, context):
    if data is None:
        return None
    time.sleep({takes_s})
    return ["{version} " + text(row) for row in data]
"""


class MmsKind(Kind):
    """Its archives as they are."""

    name = backend = "mms"

    def server(self, directory: Path) -> Server:
        return MultiModelServer(directory, {})

    def publish(self, registry: str, scratch: Path, model: str, version: str) -> None:
        source = _HANDLER.replace("{version}", version).replace("{takes_s}", str(TAKES_S))
        path = archive(scratch, model, source, version=version)
        publish_archive(path, registry=registry, backend=self.backend)

    def settings(self, server: Server) -> Mapping[str, object]:
        return {
            "mms_inference": server.url,
            "mms_management": server.management,
            "archive_store": server.repository,
        }
