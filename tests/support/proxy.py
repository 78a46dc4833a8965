"""nginx in front of a port, as its users have one."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from gateway.fakes import free_port
from support.ports import Port

__all__ = ["NGINX", "proxied"]

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@contextlib.asynccontextmanager
async def proxied(port: Port, directory: Path, *, prefix: str = "/") -> AsyncIterator[Port]:
    """Run nginx in front of a port, with one connection to it that everybody shares, passing upgrades on.

    Args:
        port: What is behind it.
        directory: Where it keeps what it writes.
        prefix: What it takes from the beginning of paths, but for a slash.
    """
    assert NGINX is not None
    listen = free_port()
    (directory / "nginx.conf").write_text(
        f"""
        daemon off; pid {directory}/pid; error_log stderr crit; worker_processes 1;
        events {{ worker_connections 64; }}
        http {{
          access_log off;
          client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
          fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
          upstream gateway {{ server {urlsplit(port.url).netloc}; keepalive 1; }}
          server {{
            listen 127.0.0.1:{listen};
            location {prefix} {{
              proxy_pass http://gateway{"/" if prefix != "/" else ""};
              proxy_http_version 1.1;
              proxy_request_buffering off;
              proxy_set_header Host $http_host;
              proxy_set_header Upgrade $http_upgrade;
              proxy_set_header Connection $http_connection;
            }}
          }}
        }}
        """
    )
    process = await asyncio.create_subprocess_exec(
        NGINX, "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", "stderr"
    )
    try:
        while True:
            assert process.returncode is None
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", listen)
                writer.close()
                break
            await asyncio.sleep(0)
        yield Port("gateway", f"http://127.0.0.1:{listen}", port.post)
    finally:
        process.terminate()
        await process.wait()
