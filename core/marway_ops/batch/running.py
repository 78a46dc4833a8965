"""One run of a job, or of a shard of it: reads rows, cuts parts, asks about those that are not done, writes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from marway_ops.batch.job import Job, Part
from marway_ops.batch.output import Output
from marway_ops.batch.requests import Answer, Asker, Failure, Target
from marway_ops.batch.rows import Raw, question_of, read_rows
from marway_ops.batch.sources import Source

__all__ = ["BatchRun", "Done", "Shard"]

_PARTS_AT_ONCE: Final = 3
"""Parts in memory: while the last rows of one are waited for, those of the next are asked."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Which parts are this run's: each ``count``-th from ``index`` on."""

    index: int = 0
    count: int = 1


@dataclass(slots=True)
class Done:
    """How far a run is.

    Attributes:
        rows, failed: Rows that it had answered, and that failed.
        skipped: Parts that were done before.
        fraction: Of the inputs that is done, from 0 to 1.
        manifest: What became of the job, once all its parts are done, by whichever run.
    """

    rows: int = 0
    failed: int = 0
    skipped: int = 0
    fraction: float = 0.0
    manifest: dict[str, Any] | None = None


@dataclass(slots=True)
class BatchRun:
    """One run, or a shard of one.

    Args:
        job: What is done.
        sources: The job's inputs, in its order.
        output: Where to.
        asker: Asks about rows.
        shard: Which parts are this run's.
        progress: Is given how far it is, as that changes.
    """

    job: Job
    sources: Sequence[Source]
    output: Output
    asker: Asker
    shard: Shard = Shard()
    progress: Callable[[Done], None] = lambda done: None
    done: Done = field(default_factory=Done)

    async def run(self) -> Done:
        """Do all that is not done.

        Raises:
            MarwayError: It cannot go on; what is done stays, and another run goes on behind it.
        """
        before = await asyncio.to_thread(self.output.committed)
        parts, total = self._parts(), 0
        running: set[asyncio.Task[None]] = set()
        try:
            while (found := await asyncio.to_thread(next, parts, None)) is not None:
                part, raws = found
                total = part.index + 1
                if part.index in before:
                    self.done.skipped += 1
                    self._reached(part, raws[-1])
                elif part.index % self.shard.count == self.shard.index:
                    if len(running) >= _PARTS_AT_ONCE:
                        ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                        for task in ended:
                            task.result()
                    running.add(asyncio.create_task(self._part(part, raws), name=part.name))
            await asyncio.gather(*running)
        finally:
            await _ended(running)
            parts.close()
        if len(await asyncio.to_thread(self.output.committed)) >= total:
            self.done.manifest = await asyncio.to_thread(self.output.finish, self.job)
        return self.done

    def _parts(self) -> Generator[tuple[Part, list[Raw]], None, None]:
        """Yield the parts of the job, which are the same each time. Blocks."""
        index, of_input, size = 0, 0, 0
        raws: list[Raw] = []
        for place, raw in read_rows(self.job, self.sources):
            full = len(raws) >= self.job.part_rows or size + raw.size > self.job.part_bytes
            if raws and (full or place != of_input):
                yield _part(index, of_input, raws), raws
                index, size, raws = index + 1, 0, []
            of_input, size = place, size + raw.size
            raws.append(raw)
        if raws:
            yield _part(index, of_input, raws), raws

    async def _part(self, part: Part, raws: list[Raw]) -> None:
        target = Target(self.job.model, self.job.version, self.job.model_id)
        source = self.sources[part.input]
        ahead = asyncio.Semaphore(self.asker.pace.most)  # files are read when it is nearly their turn

        async def ask(raw: Raw) -> Answer | Failure:
            async with ahead:
                blocks = self.job.input_format == "files"
                make = partial(question_of, raw, source, self.job)
                question = await asyncio.to_thread(make) if blocks else make()
                found = await self.asker.ask(question, target)
            failed = isinstance(found, Failure)
            self.done.failed += failed
            self.done.rows += not failed
            self.progress(self.done)
            return found

        tasks = [asyncio.create_task(ask(raw), name=f"{part.name}:{raw.number}") for raw in raws]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            await _ended(tasks)
        answers = [each for each in found if isinstance(each, Answer)]
        failures = [each for each in found if isinstance(each, Failure)]
        await asyncio.to_thread(self.output.commit, self.job, part, answers, failures)
        self._reached(part, raws[-1])

    def _reached(self, part: Part, last: Raw) -> None:
        """Say how far reading is: by rows where a row is a file, else by the bytes of inputs."""
        if self.job.input_format == "files":
            fraction = last.position
        else:
            sizes = [each.size for each in self.job.inputs]
            fraction = (sum(sizes[: part.input]) + last.position * sizes[part.input]) / max(1, sum(sizes))
        if fraction > self.done.fraction:
            self.done.fraction = fraction
            self.progress(self.done)


def _part(index: int, of_input: int, raws: list[Raw]) -> Part:
    return Part(index=index, input=of_input, first_row=raws[0].number, last_row=raws[-1].number)


async def _ended(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel what still runs of some tasks, and wait for its end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
