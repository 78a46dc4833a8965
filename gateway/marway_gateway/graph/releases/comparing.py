"""Has two versions, of which one is a graph, answer the same golden inputs through this gateway, and compares them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from marway.answers.comparison import Comparing, fails
from marway.answers.golden import DEFAULT_TOLERANCE, ExampleInput, GoldenAnswer, GoldenDocument
from marway.deadline import Deadline
from marway.errors import ArchiveCorrupt, DeadlineExceeded, LoadFailed, MarwayError, Unavailable
from marway.refs import new_ulid
from marway.resolve.resolved import Resolved
from marway.wire.comparison import Comparison
from marway_gateway.admin.graph_versions import GATEWAY
from marway_gateway.graph.releases.asker import Asked, Asker

__all__ = ["Inputs", "compared"]

_TIMED: Final = 20
_TIMING_S: Final = 2.0
"""Fast versions answer their inputs again until they were timed so often, or for so long, for a steady median."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Golden inputs, whose they are, and the base's published answers to them where they are its own."""

    examples: Sequence[ExampleInput]
    version: str
    document: GoldenDocument | None = None

    def published(self, number: int) -> GoldenAnswer | None:
        """Return the published answer to input ``number``, or None."""
        if self.document is None or len(self.document.examples) != len(self.examples):
            return None
        return self.document.examples[number].answer


async def compared(
    asker: Asker, new: Resolved, base: Resolved | None, inputs: Inputs, *, deadline: Deadline
) -> Comparison:
    """Return how a version answers golden inputs beside the base, both asked in turns.

    A base that cannot be asked is stood for by its published answers. What was compared until the deadline counts.

    Raises:
        Unavailable, DeadlineExceeded: Nothing could be compared, which says nothing of the version.
    """
    version, named = new.record.version, base.record.version if base is not None else None
    if not inputs.examples:
        which = f"neither {named} nor {version} has" if named is not None else f"{version} has no"
        return Comparison(version=version, base=named, not_compared=f"{which} golden inputs")
    tolerance = inputs.document.tolerance if inputs.document else DEFAULT_TOLERANCE
    comparing = Comparing(version, named, tolerance=tolerance)
    turns = _Turns(asker, comparing, new, base, inputs, deadline)
    notes = await turns.compare()
    done = await asyncio.to_thread(
        comparing.done, inputs=len(inputs.examples), inputs_of=inputs.version, notes=tuple(notes)
    )
    return done.model_copy(update={"pod": GATEWAY})


@dataclass(slots=True)
class _Turns:
    """One comparison."""

    asker: Asker
    comparing: Comparing
    new: Resolved
    base: Resolved | None
    inputs: Inputs
    deadline: Deadline

    async def compare(self) -> list[str]:
        """Ask for every input, compare, and take the time; return what could not be done, and was done otherwise."""
        published, began = 0, time.monotonic()
        for number in range(len(self.inputs.examples)):
            try:
                after, before = await self._both(number)
            except DeadlineExceeded:
                if self.comparing.compared == 0:
                    raise
                break
            expected = before.answer if before is not None else self.inputs.published(number)
            if expected is None and self.base is not None:
                raise Unavailable(
                    f"{self.base.record.version} cannot be asked now, and has no published golden answers"
                )
            stated = before is None and expected is not None
            published += stated
            # Of answers that nobody's handler gave, values are known, and neither kinds nor content types.
            values_only = stated and self.inputs.document is not None and self.inputs.document.values_only
            add = self.comparing.add
            await asyncio.to_thread(add, number + 1, expected, after.answer, values_only=values_only)
        await self._time_again(began)
        if not published:
            return []
        return [f"published golden answers stand for {published} of the answers that were compared with"]

    async def _time_again(self, began: float) -> None:
        number = self.comparing.compared
        try:
            while len(self.inputs.examples) <= number < _TIMED and time.monotonic() < began + _TIMING_S:
                await self._both(number)
                number += 1
        except MarwayError:
            pass  # everything is compared already

    async def _both(self, number: int) -> tuple[Asked, Asked | None]:
        """Ask the version and the base; which comes first changes from input to input."""
        example = self.inputs.examples[number % len(self.inputs.examples)]
        before = await self._ask_base(example) if number % 2 == 0 else None
        after = await self._ask(self.new, example)
        if number % 2:
            before = await self._ask_base(example)
        if not fails(after.answer):
            self.comparing.time(after.seconds)
        if before is not None and not fails(before.answer):
            self.comparing.base_time(before.seconds)
        return after, before

    async def _ask_base(self, example: ExampleInput) -> Asked | None:
        if self.base is None:
            return None
        try:
            return await self._ask(self.base, example)
        except (Unavailable, LoadFailed, ArchiveCorrupt):
            return None

    async def _ask(self, version: Resolved, example: ExampleInput) -> Asked:
        return await self.asker.ask(version, example, ids=f"golden-{new_ulid()}", deadline=self.deadline)
