"""What a sidecar tells a gateway of one request's way through its queue and its model server: one header (`RUN`)."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["UNKNOWN", "ModelRun"]

_FINITE: Final = {"1": True, "0": False, "": None}


class ModelRun(NamedTuple):
    """How the model server ran a request; None is what nobody knows.

    Attributes:
        queue_s: Seconds from when the pod had the whole request to when the model server was given it, a load included
            that it waited for.
        model_s: Seconds from there to its answer, or to the first piece of it: in the model server, and on the way
            there and back.
        batch_rows: Rows of the call of the model server that it was in, its own among them; of several the most.
        finite: Whether all numbers in the answer are finite, where somebody looked.
    """

    queue_s: float | None
    model_s: float | None
    batch_rows: int | None
    finite: bool | None

    def header(self) -> str:
        """Return it as a header's value: whole microseconds, rows, and 1, 0 or nothing."""
        queue_s, model_s, rows, finite = self
        finite_text = "" if finite is None else "1" if finite else "0"
        return f"{(queue_s or 0.0) * 1e6:.0f},{(model_s or 0.0) * 1e6:.0f},{rows or 0},{finite_text}"

    @classmethod
    def parse(cls, header: bytes | None) -> ModelRun:
        """Return what a header's value says; `UNKNOWN` without one, or where it is none."""
        if header is None:
            return UNKNOWN
        try:
            queue_us, model_us, rows, finite = header.decode("ascii").split(",")
            return cls(int(queue_us) / 1e6, int(model_us) / 1e6, int(rows) or None, _FINITE[finite])
        except (ValueError, KeyError):  # of a sidecar that is older, or newer: no reason to lose an answer
            return UNKNOWN


UNKNOWN: Final = ModelRun(None, None, None, None)
