"""What each gateway process counted of a rollout, in the registry's store, where all others read it.

::

    rollouts/<model>/<run>/evidence/<process>.json      EvidenceDocument, written by its process alone

Every process writes what it counted since it began, never a difference, so a document that is read twice, or late,
is never counted twice. One that was killed leaves its last one behind, which goes on counting.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from marway.errors import InvalidRecord
from marway.objects import ObjectMissing, ObjectStore
from marway.registry.encoding import decode, encode
from marway.registry.keys import evidence_prefix, rollout_prefix
from marway.stored import Extensible
from marway_gateway.traffic.evidence import Evidence
from marway_gateway.traffic.own_object import put_own
from marway_observations.rollouts.results import RolloutQuality, quality_key

__all__ = ["EvidenceDocument", "Exchange"]

_log = logging.getLogger(__name__)


class EvidenceDocument(Extensible):
    """What one gateway process counted of a rollout, from its own first request of it on.

    Attributes:
        process: Whose.
        watched_s: How long each turn of a step was watched, in seconds of monotonic clocks, by `Running.turn`.
        tally: Counts of answers, as `Tally.document` gives them.
        memory: What a worker of each version takes: seconds watched, bytes of the candidate's, bytes of the base's.
    """

    format: Literal[1] = 1
    process: str
    watched_s: Mapping[str, float] = Field(default_factory=dict)
    tally: Evidence = Evidence()
    memory: tuple[tuple[float, int, int | None], ...] = ()


class Exchange:
    """Writes one process's documents, and reads those of all others. Methods block.

    Args:
        store: The registry's.
        process: Name of this process, which no other has and none had before.
    """

    def __init__(self, store: ObjectStore, process: str) -> None:
        self._store = store
        self.process = process
        self._tags: dict[str, str] = {}
        self._unusable: set[str] = set()

    def write(self, model: str, run: str, document: EvidenceDocument) -> None:
        """Store this process's document in the place of its last one.

        Raises:
            RegistryUnavailable, OutcomeUnknown: It could not be; the next one holds all of it.
        """
        key = f"{evidence_prefix(model, run)}{self.process}.json"
        self._tags[key] = put_own(self._store, key, encode(document, key=key), self._tags.get(key))

    def others(self, model: str, run: str) -> dict[str, EvidenceDocument]:
        """Return what all other processes counted so far, by process; what cannot be used is left out, and logged once.

        Raises:
            RegistryUnavailable: They cannot be read.
        """
        found: dict[str, EvidenceDocument] = {}
        for key in list(self._store.keys(evidence_prefix(model, run))):
            process = key.rpartition("/")[2].removesuffix(".json")
            if process == self.process:
                continue
            try:
                document = decode(EvidenceDocument, self._store.get(key).data, source=key)
                if document.tally.format > Evidence().format:
                    raise InvalidRecord(f"{key} is of a gateway that is newer than this one: update this one")
            except ObjectMissing:
                continue  # gc took it with its rollout
            except InvalidRecord as exc:
                if key not in self._unusable:
                    _log.warning("counts of a rollout are left out: %s", exc.message)
                self._unusable.add(key)
            else:
                found[process] = document
        return found

    def quality(self, model: str, run: str) -> RolloutQuality | None:
        """Return what feedback says of a rollout, or None where nobody has looked yet.

        Raises:
            InvalidRecord: It is damaged.
            RegistryUnavailable: It cannot be read.
        """
        key = quality_key(model, run)
        try:
            return decode(RolloutQuality, self._store.get(key).data, source=key)
        except ObjectMissing:
            return None

    def forget(self, model: str, run: str) -> None:
        """Let go of what is remembered of a rollout that ended."""
        prefix = rollout_prefix(model, run)
        self._tags = {key: tag for key, tag in self._tags.items() if not key.startswith(prefix)}
        self._unusable = {key for key in self._unusable if not key.startswith(prefix)}
