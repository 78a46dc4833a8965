"""The `marway` command as a test runs it: the real one, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def marway(
    *arguments: str, cwd: Path | None = None, stdin: bytes | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `marway ARGUMENTS` and return its exit status and output."""
    done = subprocess.run(
        [sys.executable, "-m", "marway", *arguments],
        capture_output=True,
        cwd=cwd,
        input=stdin,
        timeout=120,
        env={**{k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MARWAY_"))}, **env},
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def refused(done: subprocess.CompletedProcess[str], *, status: int = 1) -> str:
    """Return the one line that a refusal printed, and assert that it is one line, no traceback, this exit status."""
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]
