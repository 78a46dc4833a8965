"""The processes of one gateway: whichever is asked for metrics tells those of all.

Each answers on a Unix socket in a directory of theirs alone, and adds the label `process` to what it and the others
say: as series of their own, counters of one that was started again begin anew without the others' being taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest

__all__ = ["Peers", "merged"]

_ANSWER_S: Final = 1.0
_FAMILY: Final = b"# HELP "
_ANSWERED: Final = b"""# HELP marway_gateway_processes Processes of this gateway, and how many told their metrics.
# TYPE marway_gateway_processes gauge
marway_gateway_processes{state="started"} %d
marway_gateway_processes{state="answered"} %d
"""


@dataclass(frozen=True, slots=True)
class Peers:
    """One of several processes, and how it finds the others.

    Attributes:
        directory: Theirs alone; each has a socket there.
        number: Which of them this one is, from 0 on.
        count: How many there are.
    """

    directory: Path
    number: int
    count: int

    @property
    def log_lock(self) -> Path:
        """Held by whoever writes lines, so that no other's come between."""
        return self.directory / "log.lock"

    @contextlib.asynccontextmanager
    async def answering(self, registry: CollectorRegistry) -> AsyncIterator[None]:
        """Tell the others this one's metrics for as long as the context lasts."""

        async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                writer.write(generate_latest(registry))
                await writer.drain()
            writer.close()

        path = self._socket(self.number)
        path.unlink(missing_ok=True)  # of one that was killed
        async with await asyncio.start_unix_server(tell, path):
            yield

    async def exposed(self, registry: CollectorRegistry) -> bytes:
        """Return the metrics of all that answer, in Prometheus' text format."""
        others = [number for number in range(self.count) if number != self.number]
        told = await asyncio.gather(*(self._ask(number) for number in others))
        found = {number: text for number, text in zip(others, told, strict=True) if text}
        found[self.number] = generate_latest(registry)
        return merged(found) + _ANSWERED % (self.count, len(found))

    async def _ask(self, number: int) -> bytes | None:
        """Return what another process says, or None when it is on its way, or hangs."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(self._socket(number))
                try:
                    return await reader.read()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return None

    def _socket(self, number: int) -> Path:
        return self.directory / f"{number}.sock"


def merged(texts: Mapping[int, bytes]) -> bytes:
    """Return expositions as one, each family once, its samples with the label `process`.

    Args:
        texts: In Prometheus' text format, by the number of the process.
    """
    heads: dict[bytes, list[bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    for number, text in sorted(texts.items()):
        label = b'{process="%d"' % number
        family = b""
        for line in text.splitlines():
            if line.startswith(_FAMILY):
                family = line.split(b" ", 3)[2]
                known = family in heads
                heads.setdefault(family, [line])
            elif line.startswith(b"#"):
                if not known:
                    heads[family].append(line)
            else:
                samples.setdefault(family, []).append(_labelled(line, label))
    return b"".join(b"\n".join([*head, *samples.get(family, ()), b""]) for family, head in heads.items())


def _labelled(sample: bytes, label: bytes) -> bytes:
    name, brace, rest = sample.partition(b"{")
    if brace and b" " not in name:
        return b"%s%s,%s" % (name, label, rest)
    name, _, value = sample.partition(b" ")
    return b"%s%s} %s" % (name, label, value)
