"""What `url` of a registration stands for: a version of the registry, or an archive at a place that the settings name.

TorchServe's own default lets anybody have it fetch any address (CVE-2023-43654). Here only what begins with one of
`torchserve_management_sources` is fetched, and redirects are not followed, for they lead elsewhere.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import aiohttp

from marway.errors import clip
from marway.refs import Reference, parse_reference
from marway_gateway.surfaces.torchserve.managing.refusals import Refused

__all__ = ["Sources", "received"]

_CONNECT_S: Final = 10.0
_READ_S: Final = 60.0
_PIECE_BYTES: Final = 1024 * 1024
_SHOWN_MAX: Final = 300
_SETTING: Final = "torchserve_management_sources (MARWAY_GATEWAY_TORCHSERVE_MANAGEMENT_SOURCES)"


class Sources:
    """The places that archives may be registered from.

    Args:
        places: Directories as `file:///…`, and beginnings of `https://…` addresses.
        registry_url: The registry's own; below it are its versions, as `MODEL/VERSION`.
        max_bytes: The largest archive that is downloaded.
    """

    def __init__(self, places: tuple[str, ...], *, registry_url: str, max_bytes: int) -> None:
        self._directories = [Path(unquote(urlsplit(each).path)) for each in places if each.startswith("file://")]
        self._prefixes = [each for each in places if not each.startswith("file://")]
        self._registry_url = registry_url.rstrip("/") + "/"
        self._max_bytes = max_bytes

    def reference(self, url: str) -> Reference | None:
        """Return the version of the registry that ``url`` names, or None where it is of an archive.

        Raises:
            InvalidReference: It is neither.
        """
        below = url.removeprefix(self._registry_url)
        if below == url and ("://" in url or url.startswith("/") or url.lower().endswith(".mar")):
            return None
        return parse_reference(below)

    @asynccontextmanager
    async def archive(self, url: str) -> AsyncIterator[Path]:
        """Give the archive at ``url`` as a file, for as long as the context lasts.

        Raises:
            Refused: It is not there, or not at a place that is named.
        """
        if ".." in url:
            raise Refused(404, "ModelNotFoundException", f"Relative path is not allowed in url: {_shown(url)}")
        if "://" in url and not url.startswith("file://"):
            if not any(url.startswith(each) for each in self._prefixes):
                raise _not_allowed(url)
            with tempfile.TemporaryDirectory(prefix="marway-register-") as directory:
                yield await self._downloaded(url, Path(directory) / "archive.mar")
            return
        yield await asyncio.to_thread(self._found, url)

    def _found(self, url: str) -> Path:
        """Return an archive in one of the directories. Blocks."""
        path = Path(unquote(urlsplit(url).path)) if url.startswith("file://") else Path(url)
        for directory in self._directories:
            root = directory.resolve()
            # Of a path without a scheme TorchServe takes the name alone, as of what clients write who share the store.
            found = (path if url.startswith("file://") else root / path.name).resolve()
            if found.is_relative_to(root) and found.is_file():
                return found
        if url.startswith("file://"):
            if any(path.is_relative_to(each) for each in self._directories):
                raise Refused(400, "DownloadArchiveException", f"Failed to download archive from: {_shown(url)}")
            raise _not_allowed(url)
        what = "it is in none of its directories" if self._directories else "it names no directory"
        raise Refused(
            404,
            "ModelNotFoundException",
            f"Model not found at: {_shown(url)}: archives by name are looked for in {_SETTING}, and {what}; give "
            "MODEL/VERSION of the registry as url, or send the archive as the body",
        )

    async def _downloaded(self, url: str, path: Path) -> Path:
        timeout = aiohttp.ClientTimeout(connect=_CONNECT_S, sock_read=_READ_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                session.get(url, allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    raise _not_downloaded(url, f"it answers with status {answer.status}")
                await received(answer.content.iter_chunked(_PIECE_BYTES), path, max_bytes=self._max_bytes)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as exc:
            raise _not_downloaded(url, clip(str(exc) or type(exc).__name__, _SHOWN_MAX)) from exc
        return path


async def received(pieces: AsyncIterator[bytes], path: Path, *, max_bytes: int) -> None:
    """Write an archive to a file as it comes.

    Raises:
        Refused: It is larger than ``max_bytes``.
    """
    size = 0
    with path.open("wb") as file:
        async for piece in pieces:
            size += len(piece)
            if size > max_bytes:
                raise Refused(
                    413,
                    "RequestEntityTooLargeException",
                    f"the archive has more than {max_bytes} bytes (torchserve_management_archive_bytes): publish it "
                    "with `marway publish`",
                )
            await asyncio.to_thread(file.write, piece)


def _not_allowed(url: str) -> Refused:
    return Refused(
        404,
        "ModelNotFoundException",
        f"Given URL {_shown(url)} does not match any allowed URL(s): places are named in {_SETTING}; give "
        "MODEL/VERSION of the registry as url, send the archive as the body, or `marway publish ARCHIVE`",
    )


def _not_downloaded(url: str, why: str) -> Refused:
    return Refused(400, "DownloadArchiveException", f"Failed to download archive from: {_shown(url)}: {why}")


def _shown(url: str) -> str:
    return clip(url, _SHOWN_MAX)
