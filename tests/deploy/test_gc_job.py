"""The CronJob's command, with its own environment and credentials, at a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from marway.registry import open_registry
from marway_observations.layout import observations_prefix, partition
from marway_observations.parquet import encode, file_name
from support.kubernetes.objects import container, environment, quantity
from support.kubernetes.render import combination
from support.registry import publish
from support.seaweed import BUCKET, S3Server

_MEASURED = """
import sys
from marway_ops.cli.main import main
try:
    main()
finally:
    print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""
"""Runs `marway` and says at its end the most memory that it had."""


def test_it_collects_with_its_own_keys(s3: S3Server, tmp_path: Path) -> None:
    """The job reads its keys from the file that is mounted, marks what nothing uses, makes one file of two of
    observations, and stays in its limit."""
    url = f"s3://{BUCKET}/gc-job"
    registry = open_registry(url)
    registry.create()
    publish(registry, tmp_path)
    unused = f"archives/sha256/{'0' * 64}.mar"
    s3.client().put_object(Bucket=BUCKET, Key=f"gc-job/{unused}", Body=b"no version has these bytes")
    hour = datetime.now(UTC) - timedelta(hours=3)
    for _ in range(2):
        rows = pa.table(
            {"prediction_id": ["A"] * 50_000, "at": pa.array([hour] * 50_000, pa.timestamp("us", tz="UTC"))}
        )
        key = observations_prefix("intent") + partition(hour) + file_name("gateway")
        registry.store.create(key, encode(rows))
    documents = combination("gc, keys")
    job = container(documents, "gc")
    told = environment(documents, job)
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {s3.env['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {s3.env['AWS_SECRET_ACCESS_KEY']}\n"
    )
    assert told["AWS_SHARED_CREDENTIALS_FILE"] == f"{job.mounts['s3-credentials']['mountPath']}/credentials"
    told |= {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "MARWAY_REGISTRY": url}
    told |= {"AWS_ENDPOINT_URL_S3": s3.endpoint, "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *job.spec["args"]], env=told, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["marked"] == [unused]
    assert (len(said["observations"]["merged"]), len(said["observations"]["replaced"])) == (1, 2)
    most = int(done.stderr.split()[-2]) * 1024
    print(f"at most {most >> 20} MiB")
    assert most < quantity(job.spec["resources"]["limits"]["memory"])
