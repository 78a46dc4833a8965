"""Searches what was kept of predictions, in a process that ends with its answer: `marway_observations.searching`.

What may be millions of rows is read there, not here: it takes no turn of the event loop, and its memory (DuckDB's 256
MiB, less where a container has less left) is given back with it. One such process runs at a time, and few wait.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from marway.errors import DeadlineExceeded, MarwayError, Overloaded
from marway.process.die_with_parent import dies_with_me
from marway.wire.problems import Problem, parse_problem
from marway_gateway.duties.child import command_of, reason_in
from marway_gateway.settings import GatewaySettings
from marway_observations.searching.questions import (
    Explain,
    Explanation,
    Figures,
    ModelFigures,
    Search,
    SearchResult,
)

__all__ = ["KeptPredictions"]

T = TypeVar("T", bound=BaseModel)

WITHIN_S: Final = 30.0
"""Seconds after which a question is given up: somebody waits before a page."""
_WAITING_MAX: Final = 8
_FIGURES_S: Final = 30.0
"""Seconds for which figures are kept: several may look at one page, which asks again and again."""


class KeptPredictions:
    """Searches what was kept of predictions.

    Args:
        registry: URL of the registry.
        settings: Name the store, and the disk that copies of files in S3 may take.
    """

    def __init__(self, registry: str, settings: GatewaySettings) -> None:
        self._registry = registry
        self._settings = settings
        self._one = asyncio.Lock()
        self._waiting = 0
        self._figures: dict[Figures, tuple[float, ModelFigures]] = {}

    async def search(self, wanted: Search) -> SearchResult:
        """Return the newest predictions that are looked for.

        Raises:
            InvalidInput: What is looked for cannot be, or is too much to be read.
            ModelNotFound: There is no such model.
            RegistryUnavailable: Registry or store cannot be read.
            Overloaded: Others search already.
            DeadlineExceeded: It took longer than 30 seconds.
        """
        return await self._answered("search", wanted, SearchResult)

    async def explain(self, wanted: Explain) -> Explanation:
        """Return all that is known of one prediction.

        Raises:
            NotFound: Nothing was kept of it.
            MarwayError: As `search`.
        """
        return await self._answered("explain", wanted, Explanation)

    async def figures(self, wanted: Figures) -> ModelFigures:
        """Return how a model's versions did. The same question within 30 seconds has the same answer.

        Raises:
            ModelNotFound: There is no such model.
            MarwayError: As `search`.
        """
        now = time.monotonic()
        for old in [each for each, (at, _) in self._figures.items() if now - at >= _FIGURES_S]:
            del self._figures[old]
        if wanted not in self._figures:
            self._figures[wanted] = now, await self._answered("figures", wanted, ModelFigures)
        return self._figures[wanted][1]

    async def _answered(self, what: str, wanted: BaseModel, kind: type[T]) -> T:
        if self._waiting >= _WAITING_MAX:
            raise Overloaded(f"{self._waiting} others search what was kept of predictions already", retry_after_s=2.0)
        self._waiting += 1
        try:
            async with self._one:
                document, log, status = await self._run(what, wanted.model_dump_json().encode())
        finally:
            self._waiting -= 1
        try:
            answer = json.loads(document)
            if "problem" in answer:
                problem = Problem.model_validate(answer["problem"])
                raise parse_problem(problem.body(), status=problem.status)
            return kind.model_validate(answer["found"])
        except (ValueError, ValidationError, KeyError) as exc:
            raise MarwayError(
                f"the process that reads what was kept of predictions ended with status {status}{reason_in(log)}"
            ) from exc

    async def _run(self, what: str, question: bytes) -> tuple[bytes, bytes, int]:
        command = command_of(
            "marway_observations.searching",
            what,
            registry=self._registry,
            observations=self._settings.observations,
            disk_bytes=self._settings.evaluation_disk_bytes,
        )
        # Not asyncio's way: uvloop's forks, which gRPC has something to say about, in the log.
        process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond; the child dies with the thread that starts it
            dies_with_me(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        ended = asyncio.get_running_loop().run_in_executor(None, process.communicate, question)
        try:
            async with asyncio.timeout(WITHIN_S):
                document, log = await asyncio.shield(ended)
        except TimeoutError:
            raise DeadlineExceeded(
                f"this search had not ended after {WITHIN_S:g} s: ask for a shorter time, or for one model"
            ) from None
        finally:
            if process.poll() is None:
                process.kill()
                await asyncio.wait({ended})
        return document, log, process.returncode
