"""An open-loop load generator: requests leave at their time, whatever became of those before (no coordinated omission).

It runs as a process of its own (`open_loop_client`), so that the test may block and be busy, and keeps a record of
every request.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from support.up import wait_until

__all__ = ["OpenLoop", "Sample", "percentile"]

_CLIENT = Path(__file__).with_name("open_loop_client.py")


@dataclass(frozen=True, slots=True)
class Sample:
    """One request, its times by `time.monotonic`, which all processes of a machine share.

    Attributes:
        sent_at: When its first attempt left.
        done_at: When its answer was there, or it failed.
        status: HTTP status, or None without an answer.
        version: What `X-Model-Version` said.
        detail: The body of an answer that is not 200, or the error; of every answer where these are kept.
        moves: How often it was taken to another gateway.
    """

    sent_at: float
    done_at: float
    status: int | None
    version: str | None
    detail: str
    moves: int

    @property
    def took_s(self) -> float:
        return self.done_at - self.sent_at


class OpenLoop:
    """Sends POST requests at a steady rate for as long as the context is open.

    Args:
        urls: Where to, in turns; a gateway that takes no connection is left for the next.
        rate: Requests a second.
        body: What to send, as text.
        headers: To send along.
        gateways: How many of the urls are the same on other gateways, one after the other; by default all are.
        keeps_answers: Whether the body of every answer is kept.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        rate: float,
        body: str = "hello",
        headers: dict[str, str] | None = None,
        gateways: int | None = None,
        keeps_answers: bool = False,
    ) -> None:
        self.samples: list[Sample] = []
        self._asked = {
            "urls": list(urls),
            "gateways": gateways or len(urls),
            "rate": rate,
            "keeps_answers": keeps_answers,
            "body": body,
            "headers": {"content-type": "text/plain", **(headers or {})},
        }
        self._reader = threading.Thread(target=self._read, name="open-loop")
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(_CLIENT), json.dumps(self._asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send nothing more and wait until everything was answered."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(120)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._reader.join(30)
        self._process.stdout.close()
        assert status == 0, "the load generator ended with an error, or requests had no answer"

    def wait_for_more(self, count: int, *, timeout_s: float = 90) -> None:
        """Wait until ``count`` further requests came to an end."""
        goal = len(self.samples) + count
        wait_until(lambda: len(self.samples) >= goal, timeout_s=timeout_s, what=f"{count} more answers")

    @property
    def failed(self) -> list[Sample]:
        """Those that were not answered 200."""
        return [sample for sample in self.samples if sample.status != 200]

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.samples.append(Sample(*json.loads(line)))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that so many percent of the others do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
