"""wrk, the load generator, in a process of its own.

It keeps a number of connections busy and sends the next request as soon as the last was answered, so a slow target is
asked less: times are those of a closed loop, and percentiles leave out who would have come meanwhile.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_SCRIPT = """
local file = assert(io.open("{body}", "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
{headers}
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('RESULT {{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"failed":%d,"wrong":%d}}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout, wrong_answers()))
end
"""
_PATIENCE_S = 30
_UNCHECKED = "function wrong_answers() return 0 end\n"
_CHECKED = """
local threads = {{}}
local expected_file = assert(io.open("{expected}", "rb"))
local expected = expected_file:read("*a")
expected_file:close()
wrong = 0
function setup(thread) table.insert(threads, thread) end
function response(status, headers, body)
  if status ~= 200 or body ~= expected then wrong = wrong + 1 end
end
function wrong_answers()
  local sum = 0
  for _, thread in ipairs(threads) do sum = sum + thread:get("wrong") end
  return sum
end
"""


class WrongAnswers(AssertionError):
    """A target failed a request, or answered something else than it should."""


@dataclass(frozen=True)
class Request:
    """What is sent, over and over."""

    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """What came of one run: requests/s, milliseconds, and how many requests were answered."""

    rate: float
    p50: float
    p99: float
    requests: float


class Generator:
    """Sends one request to any number of targets.

    Args:
        directory: Where wrk's scripts go.
        request: What is sent.
        expected: The body of every right answer.
    """

    def __init__(self, directory: Path, request: Request, expected: bytes) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "body").write_bytes(request.body)
        (directory / "expected").write_bytes(expected)
        said = {"Content-Type": request.content_type, **request.headers}
        script = _SCRIPT.format(
            body=directory / "body",
            headers="\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in said.items()),
        )
        self._plain = directory / "plain.lua"
        self._plain.write_text(_UNCHECKED + script)
        self._checking = directory / "checking.lua"
        self._checking.write_text(_CHECKED.format(expected=directory / "expected") + script)

    def check(self, url: str, *, clients: int, seconds: int) -> Load:
        """Load a target and compare the body of every answer, which costs wrk too much to be done while measuring.

        Raises:
            WrongAnswers: One failed or differed.
        """
        return _run(self._checking, url, clients, seconds)

    def load(self, url: str, *, clients: int, seconds: int) -> Load:
        """Load a target; every request must be answered with a status below 400.

        Raises:
            WrongAnswers: One was not.
        """
        return _run(self._plain, url, clients, seconds)


def is_installed() -> bool:
    return shutil.which("wrk") is not None


def version() -> str:
    """Return what wrk says of itself."""
    said = subprocess.run(["wrk", "--version"], capture_output=True, text=True).stdout
    return " ".join(said.split()[:2]) or "wrk"


def _run(script: Path, url: str, clients: int, seconds: int) -> Load:
    said = _said(script, url, clients, seconds)
    while not said["requests"] and not said["failed"] and seconds < _PATIENCE_S:
        seconds *= 2  # large bodies on a busy machine: not one answer came in time
        said = _said(script, url, clients, seconds)
    if said["failed"] or said["wrong"] or not said["requests"]:
        raise WrongAnswers(f"{url} at {clients} clients: {said}")
    return Load(said["requests"] / said["seconds"], said["p50"], said["p99"], said["requests"])


def _said(script: Path, url: str, clients: int, seconds: int) -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script), url]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 120).stdout
    (line,) = (line for line in out.splitlines() if line.startswith("RESULT "))
    found: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    return found
