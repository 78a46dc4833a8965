"""What the archiver's verbs show of progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from marway.text import human_bytes
from marway_archiver.progress import Progress as Callback
from marway_ops.shell.output import console

__all__ = ["human_bytes", "progress_bar"]

PROGRESS_FROM_BYTES = 64 * 1024 * 1024
"""Less than this is done before a bar could be read."""


@contextmanager
def progress_bar(what: str) -> Iterator[Callback]:
    """Give a progress callback that draws a bar on a terminal, for work worth one."""
    shown_on = console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=shown_on, transient=True, disable=not shown_on.is_terminal) as bar:
        task = None

        def update(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                if total < PROGRESS_FROM_BYTES:
                    return
                task = bar.add_task(what, total=total)
            bar.update(task, completed=done)

        yield update
