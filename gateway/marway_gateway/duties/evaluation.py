"""Quality and drift, looked at again and again in a process of its own: `python -m marway_observations.evaluate`.

It reads what may be millions of rows. In this process that would take the interpreter from predictions for seconds.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from marway.errors import MarwayError, clip
from marway.process.die_with_parent import dies_with_me
from marway_gateway.duties.child import command_of, reason_in
from marway_observations.evaluate.results import Evaluation, Kind

__all__ = ["WITHIN_S", "Evaluator"]

WITHIN_S: Final = 900.0
"""Time in seconds after which an evaluation that has not ended is given up: a store that hangs, or too much to read."""
_SHARE: Final = 0.1
"""Part of a processor that is taken at most, and only where nobody else wants it (`nice`)."""
_IDLE: Final = 5.0
"""So many intervals are between two looks where no version declares anything."""
_WORDS_MAX: Final = 300


class Evaluator:
    """Evaluates all models of a registry.

    Args:
        kind: What is looked at.
        registry: URL of the registry.
        observations: URL of the store with observations and feedback; None means the registry's.
        disk_bytes: What copies of files in S3 may take, and what DuckDB puts on disk, each.
        interval_s: Time from the end of one evaluation to the start of the next, in seconds, where there are rules.
        found: Told what each evaluation found.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        registry: str,
        observations: str | None,
        disk_bytes: int,
        interval_s: float,
        found: Callable[[Evaluation], None],
    ) -> None:
        self._command = command_of(
            "marway_observations.evaluate",
            kind,
            registry=registry,
            observations=observations,
            disk_bytes=disk_bytes,
        )
        self._interval_s = interval_s
        self._found = found
        self._copies: Path | None = None

    def close(self) -> None:
        """Remove the copies of what was read from S3, which stay from one evaluation to the next."""
        if self._copies is not None:
            shutil.rmtree(self._copies, ignore_errors=True)
            self._copies = None

    async def run(self) -> float:
        """Evaluate once, and return after how many seconds it is worth while again.

        Raises:
            MarwayError: It could not be done; the message has the process's own words.
        """
        evaluation = await self._evaluate()
        self._found(evaluation)
        if evaluation.rules == 0:
            return self._interval_s * _IDLE
        return max(self._interval_s, evaluation.cpu_s * (1 / _SHARE - 1))

    async def _evaluate(self) -> Evaluation:
        if self._copies is None:
            self._copies = Path(tempfile.mkdtemp(prefix="marway-evaluation-"))
        # Not asyncio's way: uvloop's forks, which gRPC has something to say about, in the log.
        process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond; the child dies with the thread that starts it
            dies_with_me([*self._command, "--copies", str(self._copies)]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        ended = asyncio.get_running_loop().run_in_executor(None, process.communicate)
        try:
            async with asyncio.timeout(WITHIN_S):
                document, words = await asyncio.shield(ended)
        except TimeoutError:
            raise MarwayError(f"an evaluation had not ended after {WITHIN_S:g} s and was given up") from None
        finally:
            if process.poll() is None:
                process.kill()
                await asyncio.wait({ended})
        try:
            if process.returncode == 0:
                return Evaluation.model_validate_json(document)
            why = reason_in(words)
        except ValidationError as exc:
            why = f": {clip(' '.join(str(exc).split()), _WORDS_MAX)}"
        raise MarwayError(f"the process that evaluates ended with status {process.returncode}{why}")
