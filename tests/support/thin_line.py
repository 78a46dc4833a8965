"""A TCP proxy that holds what a server sends on each connection to a rate, as S3 does it.

It is a process of its own, or it would share an interpreter's lock with what is measured.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["thin_line"]

_PIECE_BYTES = 256 * 1024


@contextmanager
def thin_line(target: str, bytes_per_s: float) -> Iterator[str]:
    """Run one before ``target`` ("http://127.0.0.1:8333") for the length of a block; gives its endpoint."""
    process = subprocess.Popen(
        [sys.executable, __file__, target.removeprefix("http://"), str(bytes_per_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
            process.stdin.close()  # also when this process dies: it then ends
    finally:
        process.kill()
        process.wait(10)


async def _run(host: str, port: int, bytes_per_s: float) -> None:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float | None) -> None:
        clock = asyncio.get_running_loop().time
        free_at = clock()
        with suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                writer.write(piece)
                await writer.drain()
                if rate is not None:
                    free_at = max(free_at, clock() - 0.05) + len(piece) / rate
                    await asyncio.sleep(free_at - clock())
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection(host, port)
        await asyncio.gather(copy(reader, behind[1], None), copy(behind[0], writer, bytes_per_s))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    _host, _, _port = sys.argv[1].partition(":")
    asyncio.run(_run(_host, int(_port), float(sys.argv[2])))
