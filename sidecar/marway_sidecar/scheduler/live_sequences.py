"""The sequences of one version that live, and those that ended by themselves, until their callers are told."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from marway.archives.sequences import SequenceSettings
from marway.errors import Overloaded, SequenceNotFound, clip
from marway.records import VersionRecord
from marway_sidecar.errors import about
from marway_sidecar.scheduler.queue import Job

__all__ = ["LiveSequence", "LiveSequences", "Step"]

_ENDED_MAX: Final = 10_000
_RETRY_MAX_S: Final = 60.0


@dataclass(eq=False, slots=True)
class Step:
    """One request of a sequence: as its caller submitted it, and as it waits for the worker, once it is its turn."""

    job: Job
    sequence: LiveSequence
    begins: bool
    ends: bool
    inner: Job | None = None


@dataclass(eq=False, slots=True)
class LiveSequence:
    """A sequence that lives.

    Attributes:
        id: What its callers call it.
        worker: Who has its state; None before the first answer.
        current: Its request that is in the version's queue or in a call.
        waiting: Those behind that.
        began, used: When it began, and when it was of use last, on the monotonic clock.
    """

    id: str
    worker: str | None = None
    current: Step | None = None
    waiting: deque[Step] = field(default_factory=deque)
    began: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)


class LiveSequences:
    """Those of one version.

    Args:
        record: The version.
        rules: How long and how many live.

    Attributes:
        by_id: They.
    """

    def __init__(self, record: VersionRecord, rules: SequenceSettings) -> None:
        self.by_id: dict[str, LiveSequence] = {}
        self._record = record
        self._rules = rules
        self._ended_why: OrderedDict[str, str] = OrderedDict()

    def begin(self, name: str, start: str) -> LiveSequence:
        """Return a sequence that begins now, if it may by what the request says of its start.

        Raises:
            SequenceNotFound: It is to go on, or it ended by itself and nobody was told yet.
            Overloaded: As many live as may.
        """
        why = self._ended_why.pop(name, None)
        if start != "true" and (why is not None or start == "false"):
            raise self.gone(name, why or "it was not begun, has ended, or the worker or pod with its state is gone")
        if len(self.by_id) >= self._rules.max_live:
            message = (
                f"{len(self.by_id)} sequences of {self._record.name} {self._record.version} live on this pod, which "
                f"is the most (maxNumSequence): end some, or wait until one was idle for {self._rules.idle_s:g} s"
            )
            wait_s = self.first_due_at() - time.monotonic()
            raise about(self._record, Overloaded(message, retry_after_s=max(1.0, min(wait_s, _RETRY_MAX_S))))
        sequence = self.by_id[name] = LiveSequence(name)
        return sequence

    def overdue(self) -> list[tuple[LiveSequence, str]]:
        """Return those whose time is over, and why, and remember that: who asks on is told."""
        now, rules = time.monotonic(), self._rules
        found = []
        for sequence in self.by_id.values():
            if sequence.current is None and self._due_at(sequence) <= now:
                why = f"it began more than {rules.timeout_s} s ago (sequenceTimeoutMSec)"
                if now >= sequence.used + rules.idle_s:
                    why = f"no request of it came for {rules.idle_s:g} s (sequenceMaxIdleMSec)"
                found.append((sequence, why))
                self._ended_why[sequence.id] = why
                if len(self._ended_why) > _ENDED_MAX:
                    self._ended_why.popitem(last=False)
        return found

    def first_due_at(self) -> float:
        """Return when the first of them ends, if nobody asks on, on the monotonic clock; there is one at least."""
        return min(map(self._due_at, self.by_id.values()))

    def gone(self, name: str, why: str) -> SequenceNotFound:
        """Return the error of who asks for one that is not there."""
        title = f"{self._record.name} {self._record.version}"
        message = f"the sequence {clip(name, 100)!r} of {title} is not there: {why}; begin it anew"
        return about(self._record, SequenceNotFound(message))

    def _due_at(self, sequence: LiveSequence) -> float:
        at = sequence.used + self._rules.idle_s
        return at if self._rules.timeout_s is None else min(at, sequence.began + self._rules.timeout_s)
