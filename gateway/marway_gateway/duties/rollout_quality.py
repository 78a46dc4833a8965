"""What feedback says of rollouts that run, looked at every few seconds, in a process that stays while there are any.

What it finds is in the registry's store (`marway_observations.rollouts`), where every gateway reads it, and judges by
it. Here the policy `thompson` moves its percents by it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final

from pydantic import ValidationError

from marway.errors import MarwayError, StateConflict
from marway.process.die_with_parent import dies_with_me
from marway.registry.keys import ROLLOUTS, state_key
from marway.traffic import Traffic
from marway_gateway.admin.registry_writer import RegistryWriter
from marway_gateway.duties.child import command_of, reason_in
from marway_gateway.traffic.bandit import chance_better, percent_of
from marway_observations.rollouts.results import Asked, Comparison, Look, Looked

__all__ = ["INTERVAL_S", "RolloutQualityDuty"]

INTERVAL_S: Final = 3.0
"""Time from the end of one look to the next, in seconds."""
_WITHIN_S: Final = 120.0
"""Time in seconds after which a look is given up, and with it the process."""
_SHARE: Final = 0.1
"""Part of a processor that looks take at most, and only where nobody else wants it (`nice`)."""
_KEPT: Final = 20
"""After so many looks at nothing the process ends: rollouts come one after the other."""
_BY: Final = "marway (thompson)"
_MOVE_S: Final = 10.0
"""Shortest time between two moves of a percent, in seconds: the scores of the first five say nothing of either side."""
_log = logging.getLogger(__name__)


class RolloutQualityDuty:
    """Has the rollouts looked at whose guards ask for feedback, or whose policy goes by it.

    Args:
        writer: Moves percents.
        observations: URL of the store with observations and feedback; None means the registry's.
        disk_bytes: What copies of files in S3 may take, and what DuckDB puts on disk, each.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        writer: RegistryWriter,
        *,
        observations: str | None,
        disk_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._registry = writer.registry
        self._clock = clock
        self._command = command_of(
            "marway_observations.rollouts",
            registry=self._registry.url,
            observations=observations,
            disk_bytes=disk_bytes,
        )
        self._child: _Child | None = None
        self._idle = 0
        self._known: dict[str, tuple[str, dict[str, Traffic]]] = {}
        self._moved: dict[str, tuple[float, float]] = {}
        self._troubled: frozenset[str] = frozenset()

    async def run(self) -> float:
        """Look once, and return after how many seconds it is to be done again.

        Raises:
            MarwayError: It could not be done.
        """
        found = await self._writer.call(self._running)
        if not found:
            self._idle += 1
            if self._idle >= _KEPT:
                self.close()
            return INTERVAL_S
        self._idle = 0
        looked = await self._look([asked for asked, _ in found])
        self._log_outcome(looked)
        for asked, traffic in found:
            quality = looked.found.get(asked.rollout)
            if quality is not None and quality.reward is not None and traffic.policy == "thompson":
                await self._weigh(asked, traffic, quality.reward)
        self._moved = {each: self._moved[each] for each in {asked.rollout for asked, _ in found} & self._moved.keys()}
        return max(INTERVAL_S, looked.cpu_s * (1 / _SHARE - 1))

    def close(self) -> None:
        """End the process; a second call does nothing."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _running(self) -> list[tuple[Asked, Traffic]]:
        """Return the rollouts that run and go by feedback. Blocks."""
        found = []
        models = [each.rstrip("/") for each in self._registry.store.children(ROLLOUTS)]
        for model in models:
            for label, traffic in self._traffic(model).items():
                if traffic.rollout is not None and ("quality" in traffic.guards or traffic.policy == "thompson"):
                    found.append((Asked(model=model, label=label, rollout=traffic.rollout), traffic))
        self._known = {model: self._known[model] for model in models if model in self._known}
        return found

    def _traffic(self, model: str) -> dict[str, Traffic]:
        """Return how a model's labels are divided; its state is only read where it was changed."""
        tag = self._registry.store.tag(state_key(model))
        known = self._known.get(model)
        if known is None or known[0] != tag:
            if tag is None:
                return {}
            known = self._known[model] = tag, dict(self._registry.state(model).traffic)
        return known[1]

    async def _look(self, rollouts: Sequence[Asked]) -> Looked:
        if self._child is None:
            self._child = _Child(self._command)
        child = self._child
        try:
            async with asyncio.timeout(_WITHIN_S):
                return await asyncio.get_running_loop().run_in_executor(
                    None, child.ask, Look(rollouts=tuple(rollouts)).model_dump_json()
                )
        except TimeoutError:
            raise MarwayError(f"a look had not ended after {_WITHIN_S:g} s and was given up") from None
        finally:
            if not child.fit:  # it ended, or nobody knows what it would answer to the next question
                self.close()

    def _log_outcome(self, looked: Looked) -> None:
        troubles = {f"feedback on the rollout of {each.model} is not judged: {each.why}" for each in looked.troubles}
        for words in sorted(troubles - self._troubled):  # once a trouble, not once a look
            _log.warning("%s", words)
        self._troubled = frozenset(troubles)

    async def _weigh(self, asked: Asked, traffic: Traffic, reward: Comparison) -> None:
        """Move a rollout's percent, at most once a step's time, to where its scores want it."""
        percent, since = self._moved.get(asked.rollout, (None, 0.0))
        now = self._clock()
        if percent != traffic.percent:  # it was moved, here or by another process, or is seen for the first time
            self._moved[asked.rollout] = traffic.percent, now
            return
        if traffic.status != "running" or now - since < max(_MOVE_S, traffic.step_time_s):
            return
        chance = chance_better(reward.steps)
        wanted = percent_of(traffic, chance)
        if wanted is None:
            return
        answers = sum(sum(each.base.values()) + sum(each.candidate.values()) for each in reward.steps)
        reason = f"the candidate is the better one with a probability of {chance:.3g}, by {answers} scores"
        try:
            await self._writer.change(
                self._registry.set_weights,
                asked.model,
                label=asked.label,
                rollout=asked.rollout,
                percent=wanted,
                was=traffic.percent,
                reason=reason,
                by=_BY,
            )
        except StateConflict as exc:
            _log.info("%s", exc.message)  # it ended meanwhile, or another process moved it


class _Child:
    """The process that looks. Methods block, and `close` may be called while another waits for an answer.

    Args:
        command: Starts it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._copies = Path(tempfile.mkdtemp(prefix="marway-rollouts-"))
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        # Not asyncio's way: uvloop's forks, which gRPC has something to say about, in the log.
        self._process = subprocess.Popen(
            dies_with_me([*command, "--copies", str(self._copies)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
        )
        self.fit = True

    def ask(self, question: str) -> Looked:
        """Return the answer to a line.

        Raises:
            MarwayError: There is none.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.fit = False
        try:
            self._process.stdin.write(question.encode() + b"\n")
            self._process.stdin.flush()
            looked = Looked.model_validate_json(self._process.stdout.readline())
        except (OSError, ValueError, ValidationError) as exc:
            raise MarwayError(f"the process that looks at rollouts ended{self._why()}") from exc
        self.fit = True
        return looked

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._words.close()
        shutil.rmtree(self._copies, ignore_errors=True)

    def _why(self) -> str:
        try:
            self._words.seek(0)
            return reason_in(self._words.read())
        except ValueError:  # closed meanwhile
            return ""
