"""What was compared, as JSON has it in a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from marway_archiver.adopt.comparing.clients import ClientLine
from marway_archiver.adopt.comparing.comparing import Comparison
from marway_archiver.adopt.comparing.examples import Golden
from marway_archiver.adopt.comparing.requests import Requests
from marway_archiver.adopt.comparing.tally import ComparedModel
from marway_archiver.adopt.comparing.timing import Timing

__all__ = ["compared_document", "lines_document", "requests_document"]


def compared_document(comparison: Comparison, *, old: str | None, new: str) -> dict[str, Any]:
    """Return a comparison; times in milliseconds.

    Args:
        comparison: What came of it.
        old: The old server's address; None where what a file recorded was compared with.
        new: Marway's, in words or as its address.
    """
    return {
        "old": old,
        "new": new,
        "equal": comparison.ok,
        "tolerance": comparison.tolerance.model_dump(),
        "not_found": dict(comparison.not_found),
        "models": [_model(each) for each in comparison.models],
    }


def _model(model: ComparedModel) -> dict[str, Any]:
    found = asdict(model)
    found["protocols"] = list(model.protocols)
    found["examples"] = [asdict(each) for each in model.examples]
    found["timing"] = None if model.timing is None else _timing(model.timing)
    return found


def _timing(timing: Timing) -> dict[str, Any]:
    return {
        "pairs": timing.pairs,
        "old_p50_ms": _ms(timing.old_p50_s),
        "new_p50_ms": _ms(timing.new_p50_s),
        "old_p95_ms": _ms(timing.old_p95_s),
        "new_p95_ms": _ms(timing.new_p95_s),
        "ratio": round(timing.ratio, 3),
        "low": None if timing.low is None else round(timing.low, 3),
        "high": None if timing.high is None else round(timing.high, 3),
        "verdict": timing.verdict,
    }


def requests_document(requests: Requests, golden: Mapping[str, Golden]) -> dict[str, Any]:
    """Return what a file of requests held, and by version how many became golden examples, and which not and why."""
    return {
        "requests": len(requests.found),
        "repeated": requests.repeated,
        "left_out": dict(requests.left_out),
        "not_read": dict(requests.not_read),
        "golden": {name: _golden(each) for name, each in golden.items()},
    }


def _golden(golden: Golden) -> dict[str, Any]:
    signature = None if golden.signature is None else golden.signature.model_dump(mode="json")
    return {"examples": len(golden.examples), "left_out": list(golden.left_out), "signature": signature}


def lines_document(lines: Sequence[ClientLine]) -> list[dict[str, Any]]:
    """Return what a client changes."""
    return [asdict(each) for each in lines]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
