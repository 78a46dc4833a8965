"""What gc does to rollouts that are long over: what was counted of them goes, their history stays."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from marway.registry import keys
from marway.registry.reading import Reading
from marway.traffic import run_of

__all__ = ["ROLLOUT_KEPT", "ExpiringRollouts"]

ROLLOUT_KEPT: Final = timedelta(days=90)
"""How long counts and reports of a rollout that ended are kept, from when the last of them was written."""


class ExpiringRollouts(Reading):
    """Deletes what is kept beside rollouts that ended, or were never begun."""

    def _rollouts_over(self, now: datetime, *, dry_run: bool) -> list[str]:
        """Delete what belongs to rollouts that no state tells of, and that nobody wrote for `ROLLOUT_KEPT`.

        What a rollout is known by goes last, so that one whose deletion was interrupted is found again.

        Returns:
            The keys that are deleted, or would be.

        Raises:
            InvalidRecord: A state cannot be read.
        """
        gone: list[str] = []
        for model in self._store.children(keys.ROLLOUTS):
            running = {run_of(label, each) for label, each in self.state(model).traffic.items()}
            for rollout in list(self._store.children(f"{keys.ROLLOUTS}{model}/")):
                prefix = keys.rollout_prefix(model, rollout)
                if rollout in running:
                    continue
                found = sorted(self._store.keys(prefix), key=lambda key: key == keys.rollout_key(model, rollout))
                written = [at for key in found if (at := self._store.written_at(key)) is not None]
                if not written or now - max(written) < ROLLOUT_KEPT:
                    continue
                gone += found
                if not dry_run:
                    for key in found:
                        self._store.delete(key)
        return gone
