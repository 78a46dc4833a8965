"""Rows of sequences in a worker, which says with each answer that it has the state, and refuses rows whose state
another worker had: the handler would begin anew and nobody would know.

Standard library only: workers of TorchServe run this too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from secrets import token_hex
from typing import Any, Final

from marway.wire.envelope import Answer, Row
from marway.wire.headers import SEQUENCE_END, SEQUENCE_ID, SEQUENCE_START, SEQUENCE_WORKER

__all__ = ["LOST", "ORIGINAL", "InSequences", "alone", "keeps_sequences"]

LOST: Final = "lost"
"""What `SEQUENCE_WORKER` says with the answer to a row whose state another worker had."""
ORIGINAL: Final = "marwayOriginal"
"""Where the configuration file of an archive has what it said before TorchServe was kept from reading that."""

Send = Callable[[Answer], None]


def keeps_sequences(context: Any) -> bool:
    """Return whether an archive keeps sequences; its handler finds its configuration file as it was packed."""
    config = context.model_yaml_config or {}
    if ORIGINAL in config:
        config = context.model_yaml_config = config[ORIGINAL]
    return config.get("sequenceBatching") is True


def alone(row: Row) -> Row:
    """Return a row that is of no sequence as one that is a sequence of its own, as golden examples are."""
    own = {SEQUENCE_ID: f"alone-{token_hex(8)}", SEQUENCE_START: "true", SEQUENCE_END: "true"}
    return replace(row, headers={**row.headers, **own})


class InSequences:
    """Answers the rows of a version that keeps sequences.

    Args:
        answered: Has the handler answer rows.
    """

    def __init__(self, answered: Callable[[Sequence[Row], Send], list[Answer]]) -> None:
        self._answered = answered
        self._process: int | None = None
        self._name = ""

    def __call__(self, rows: Sequence[Row], send: Send) -> list[Answer]:
        """Return an answer for each row; those whose state is not here never reach the handler."""
        answers: dict[int, Answer] = {}
        asked: dict[int, Row] = {}
        for index, row in enumerate(rows):
            kept_by = row.headers.get(SEQUENCE_WORKER)
            if kept_by is None:
                asked[index] = alone(row)
            elif kept_by in ("", self.name):
                own = {name: value for name, value in row.headers.items() if name != SEQUENCE_WORKER}
                asked[index] = replace(row, headers=own)
            else:
                message = b"the worker that had the state of the sequence has ended"
                answers[index] = Answer(404, message, "error", None, {SEQUENCE_WORKER: LOST})
        for index, answer in zip(asked, self._answered(list(asked.values()), send) if asked else (), strict=True):
            with_sequence = dict(answer.headers)
            if SEQUENCE_WORKER in rows[index].headers:
                with_sequence = {
                    SEQUENCE_ID: asked[index].headers[SEQUENCE_ID],
                    **with_sequence,
                    SEQUENCE_WORKER: self.name,
                }
            answers[index] = replace(answer, headers=with_sequence)
        return [answers[index] for index in range(len(rows))]

    @property
    def name(self) -> str:
        """The worker's own, which no other has had or will have; of a fork another than its parent's."""
        if self._process != os.getpid():
            self._process, self._name = os.getpid(), token_hex(16)
        return self._name
