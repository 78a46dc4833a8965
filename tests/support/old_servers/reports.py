"""A program: `reports.py DIRECTORY [NAME…]` writes the reports of docs/adopt, each of a real server taken over.

`make adopt-reports` runs it. What is another in each run is called the same: directories, ports.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # as pytest has it

from support.old_servers import OLD_SERVERS, OldServer

_PORT = re.compile(r"(127\.0\.0\.1|localhost):\d{4,5}")


def report(name: str, home: Path, old: OldServer) -> str:
    """Take over an old server and return the report, with names in the place of this machine's."""
    path = home / "report.md"
    command = [sys.executable, "-m", "marway", "adopt", str(old.source), "--from", old.url, "--report", str(path)]
    command += ["--requests", str(old.requests), "--registry", (home / "registry").as_uri(), "--create-registry"]
    done = subprocess.run([*command, *old.arguments], env=os.environ | old.environment, text=True, capture_output=True)
    print(f"{name}: exit code {done.returncode}\n{done.stdout}{done.stderr}", file=sys.stderr)
    text = path.read_text(encoding="utf-8")
    for mine, told in ((str(home), "/srv"), (sys.executable, "/usr/bin/python3"), (old.url, "http://OLD")):
        text = text.replace(mine, told)
    return _PORT.sub(r"\1:PORT", text)


def main(directory: Path, names: list[str]) -> None:
    """Write the reports."""
    directory.mkdir(exist_ok=True)
    for name in names or OLD_SERVERS:
        with tempfile.TemporaryDirectory(prefix="adopt-") as temporary:
            home = Path(temporary)
            with OLD_SERVERS[name](home) as old:
                (directory / f"{name}.md").write_text(report(name, home, old), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
