"""Every command that README and docs show is run."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.up import Up, processes_of, wait_until

ROOT = Path(__file__).parents[2]
# Commands that need one another run in their order, in tests/e2e/test_openai.py, tests/e2e/test_docs_rollouts.py,
# tests/archiver/bundles/test_docs_bundles.py, tests/archiver/adopt/test_docs_adopt.py,
# tests/archiver/test_docs_graphs.py, tests/dev/test_docs_dev.py, tests/gateway/admin/test_docs_backup.py and
# tests/e2e/test_sequences.py.
_RUN_IN_ORDER = (
    "adopt",
    "backup",
    "bundles",
    "copying",
    "dev",
    "graphs",
    "importers",
    "openai",
    "rollouts",
    "sequences",
    "tables",
    "tutorial",
)
_ELSEWHERE = {ROOT / "docs" / f"{name}.md" for name in _RUN_IN_ORDER}
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md")} - _ELSEWHERE)
_FENCE = re.compile(r"^```(console|sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# These run the tests, the linters or a whole installation: CI has just done so, and here make only plans them.
_PLANNED = {
    "setup",
    "docs",
    "test",
    "test-unit",
    "test-e2e",
    "test-faults",
    "test-install",
    "test-long",
    "lint",
    "fmt",
    "proto",
    "clean",
    "images",
    "bench",
    "bench-bandit",
    "bench-batch",
    "bench-bodies",
    "bench-cache",
    "bench-client",
    "bench-cold",
    "bench-cold-path",
    "bench-engines",
    "bench-features",
    "bench-fetch",
    "bench-gateway",
    "bench-graph",
    "bench-http",
    "bench-logging",
    "bench-observations",
    "bench-open-inference",
    "bench-path",
    "bench-peers",
    "bench-processes",
    "bench-publish",
    "bench-shadow",
    "bench-speed",
    "bench-weights",
}
_TESTED_BELOW = {"make up", "make demo"}
_TESTED_ELSEWHERE = {  # tests/examples
    *("make example-grpc-predictor", "make example-mlserver", "make example-monitoring", "make example-release"),
    *("make example-graph", "make example-triton"),
}
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


# Of a make that runs these tests: the makes below are not its children.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


def blocks(kinds: set[str]) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for kind, text in _FENCE.findall(page.read_text()):
            if kind in kinds:
                yield page, text


def commands() -> Iterator[tuple[str, str]]:
    for page, text in blocks({"console", "sh"}):
        shown = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ") or "$ " not in text]
        for line in shown:
            if line.strip() and line not in _TESTED_BELOW | _TESTED_ELSEWHERE:
                yield str(page.relative_to(ROOT)), line


def page_of(command: tuple[str, str]) -> str:
    return f"{command[0]}: {command[1][:60]}"


@pytest.fixture(scope="session")
def beside(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that looks like a checkout in which `make up` runs."""
    directory = tmp_path_factory.mktemp("checkout")
    for name in ("README.md", "docs", "examples", "Makefile", "config", "pyproject.toml", "constraints.txt"):
        (directory / name).symlink_to(ROOT / name)
    handler = next(text for page, text in blocks({"python"}) if page.name == "archives.md")
    (directory / "handler.py").write_text(handler)  # what docs/archives.md has its reader write first
    (directory / ".venv").symlink_to(sys.prefix)
    (directory / ".marway").symlink_to(up.home)
    return directory


def here(text: str, up: Up) -> str:
    """Return a command or a script with this run's ports in place of the default ones."""
    gateway, admin = (up.ready[name].rpartition(":")[2] for name in ("gateway", "admin"))
    return text.replace("127.0.0.1:8000", f"127.0.0.1:{gateway}").replace("127.0.0.1:8001", f"127.0.0.1:{admin}")


def packed_first(line: str, beside: Path) -> str:
    """Put before a command what packs its archive, where the test of the command that does has not run here."""
    if "shout.mar" not in line.split() or (beside / "shout.mar").exists():
        return line
    pack = next(text for page, text in commands() if page == "docs/archives.md" and text.startswith("marway pack"))
    return f"{pack} && {line}"


def shared_out() -> Iterator[object]:
    """Mark what takes long: training, which tests/examples and the fixture `up` do, too; and pods of both engines."""
    for command in commands():
        long = any(each in command[1] for each in ("train.py", "marway compare", "--engine both"))
        yield pytest.param(command, marks=[pytest.mark.extended] if long else [])


@pytest.mark.parametrize("command", list(shared_out()), ids=page_of)
def test_commands_work_as_shown(up: Up, beside: Path, tmp_path: Path, command: tuple[str, str]) -> None:
    """A command of the documents does what it says, with exit status 0."""
    line = command[1]
    words = shlex.split(line, comments=True)
    if words[0] == "make" and words[1] in _PLANNED:
        line = f"make --dry-run {shlex.join(words[1:])}"
    if words[0] == "curl":
        line = line.replace("curl ", "curl --fail-with-body --silent --show-error --max-time 60 ", 1)
    line = packed_first(line, beside).replace("/tmp/", f"{tmp_path}/")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", here(line, up)],
        cwd=beside,
        capture_output=True,
        text=True,
        timeout=240,
        env={**_ENVIRONMENT, "PATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def scripts() -> Iterator[object]:
    """Python that does something by itself; definitions are what other examples use."""
    for page, text in blocks({"python"}):
        compile(text, str(page), "exec")
        if "print(" in text:
            # tests/core/client and tests/gateway/surfaces/test_python_client.py ask by the same client
            more = page.parent.name == "client"
            yield pytest.param(page.name, text, marks=[pytest.mark.extended] if more else [])


@pytest.mark.parametrize(("page", "script"), list(scripts()), ids=lambda value: value[:30].splitlines()[0])
def test_python_examples_work_as_shown(up: Up, page: str, script: str) -> None:
    """A script of the documents runs against what `make up` started."""
    done = subprocess.run([sys.executable, "-c", here(script, up)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{page}: {done.stderr}"
    assert done.stdout.strip()


def test_make_up_serves_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    """`make up` predicts, prints the curl line that repeats it, and leaves nothing behind after Ctrl-C."""
    home = tmp_path / "home"
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["make", "up", f"UP_ARGS=--port 0 --home {home}", f"VENV={sys.prefix}"],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=_ENVIRONMENT,
            start_new_session=True,
        )
    try:
        wait_until(
            lambda: "serving; Ctrl-C" in output.read_text() or process.poll() is not None, timeout_s=240, what="serving"
        )
        text = output.read_text()
        line = re.search(r"\$ (curl -d .*)", text)
        assert line is not None, text
        again = subprocess.run(["bash", "-c", f"{line[1]} --silent"], capture_output=True, text=True, timeout=60)
        assert '"label": "set_alarm"' in again.stdout
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        process.wait(30)
        assert "stopped" in output.read_text()
        wait_until(lambda: not processes_of(home), timeout_s=20, what="everything gone")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        for leftover in processes_of(home):
            leftover.kill()


@pytest.mark.extended  # test_make_up_serves_and_stops_on_ctrl_c starts the same
def test_make_demo_ends_by_itself() -> None:
    """`make demo` prints the answers of both models and ends with status 0."""
    started = time.monotonic()
    done = subprocess.run(
        ["make", "demo", f"VENV={sys.prefix}"], cwd=ROOT, capture_output=True, text=True, timeout=300, env=_ENVIRONMENT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"label": "set_alarm"' in done.stdout
    for digit in ("0", "4", "7"):
        assert f'"label": "{digit}"' in done.stdout
    print(f"make demo took {time.monotonic() - started:.0f} s")


def test_make_help_lists_every_verb() -> None:
    """Each target of the Makefile that is a verb is in `make help`."""
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, env=_ENVIRONMENT)
    assert {line.split()[0] for line in done.stdout.splitlines()} == set(phony[1].split())
