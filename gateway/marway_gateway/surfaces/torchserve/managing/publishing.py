"""Has an archive checked, written canonically and published, in a process of its own.

An archive may be anybody's and large: reading it on the event loop would stop predictions, and the archiver is a room
that the gateway does not import. The process runs nothing of what is in the archive.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from marway.errors import MarwayError, clip
from marway.process.die_with_parent import dies_with_me
from marway.records import VersionRecord
from marway.wire.problems import Problem, parse_problem

__all__ = ["publish"]

_MODULE: Final = "marway_archiver.publishing.registering"
_WITHIN_S: Final = 3600.0
_WORDS_MAX: Final = 1000
_log = logging.getLogger(__name__)


class _Published(BaseModel):
    """What the process answers: the version that was stored, or why it was not."""

    record: VersionRecord | None = None
    problem: Problem | None = None


async def publish(
    archive: Path, *, registry: str, model_name: str | None, handler: str | None, publisher: str
) -> VersionRecord:
    """Publish an archive, and return the version; one with the same bytes that is there already is returned.

    Args:
        archive: The file.
        registry: URL of the registry.
        model_name: In place of the name that its manifest says, or None.
        handler: In place of the manifest's handler, or None.
        publisher: Who, for the record.

    Raises:
        InvalidArchive: It is none, or would not be served.
        VersionConflict: The version exists with other bytes, or was deleted.
        MarwayError: It cannot be stored; the message has the process's own words.
    """
    command = [sys.executable, "-m", _MODULE, str(archive), "--registry", registry, "--publisher", publisher]
    for flag, value in (("--model-name", model_name), ("--handler", handler)):
        if value is not None:
            command.append(f"{flag}={value}")
    # Not asyncio's way: uvloop's forks, which gRPC has something to say about, in the log.
    process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond; the child dies with the thread that starts it
        dies_with_me(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    ended = asyncio.get_running_loop().run_in_executor(None, process.communicate)
    try:
        async with asyncio.timeout(_WITHIN_S):
            document, words = await asyncio.shield(ended)
    except TimeoutError:
        raise MarwayError(f"publishing had not ended after {_WITHIN_S:g} s and was given up") from None
    finally:
        if process.poll() is None:
            process.kill()
            await asyncio.wait({ended})
    output = clip(" ".join(words.decode(errors="replace").split()), _WORDS_MAX)
    try:
        published = _Published.model_validate_json(document)
    except ValidationError:
        raise MarwayError(f"the process that publishes ended with status {process.returncode}: {output}") from None
    if published.problem is not None:
        raise parse_problem(published.problem.body(), status=published.problem.status)
    assert published.record is not None
    if output:
        _log.info("%s %s was registered: %s", published.record.name, published.record.version, output)
    return published.record
