"""The shipped examples, trained and published into a registry once; the label comes when a pod has proved them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable

from marway.errors import MarwayError, ModelNotFound, VersionNotFound
from marway.process.die_with_parent import dies_with_me
from marway.refs import Reference
from marway.registry import Registry
from marway.resources import shipped
from marway_ops.up.home import Home

__all__ = ["EXAMPLES", "EXAMPLE_VERSION", "is_published", "train_and_publish"]

EXAMPLES = ("intent", "digits")
EXAMPLE_VERSION = "1.0"


def is_published(registry: Registry, name: str) -> bool:
    """Return whether an example is in the registry, so that it need not be trained."""
    try:
        registry.resolve(Reference(name, EXAMPLE_VERSION))
    except (ModelNotFound, VersionNotFound):
        return False
    return True


async def train_and_publish(home: Home, registry: str, name: str, *, said: Callable[[str], None]) -> None:
    """Run an example's training script, which ends with its publication.

    Args:
        home: Where the trained files go.
        registry: Registry URL.
        name: One of `EXAMPLES`.
        said: Told each line that the script prints.

    Raises:
        MarwayError: The script failed; its last words are in the message.
    """
    script = shipped(f"examples/{name}/train.py")
    out = home.example(name)
    out.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-u", str(script), "--out", str(out), "--registry", registry),
        *("--name", name, "--version", EXAMPLE_VERSION, "--label", ""),
    ]
    process = await asyncio.create_subprocess_exec(
        *dies_with_me(command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            if line:
                lines.append(line)
                said(line)
        status = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status != 0:
        raise MarwayError(f"training the example {name!r} failed with status {status}: {' / '.join(lines[-5:])}")
