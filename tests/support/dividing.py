"""Labels that are divided between two versions, as a rollout leaves them in a model's state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from marway.records import HistoryEntry, ModelState, utc_now
from marway.refs import new_ulid
from marway.registry import Registry
from marway.traffic import Traffic
from marway.wire.pods import ModelStatus

__all__ = ["divide", "held", "traffic_of"]


def traffic_of(candidate: str = "2.0", *, percent: float = 100.0, **facts: Any) -> Traffic:
    """Return how a label is divided between 1.0 and a candidate."""
    now = utc_now()
    known: dict[str, Any] = {
        "rollout": new_ulid(),
        "base": "1.0",
        "candidate": candidate,
        "percent": percent,
        "steps": (percent, 100.0),
        "began": now,
        "step_began": now,
        "by": "test",
    }
    return Traffic(**{**known, **facts})


def divide(registry: Registry, model: str, traffic: Traffic | None, *, label: str = "PROD") -> None:
    """Have a label divided so from now on, or no longer; what `marway rollout` would refuse as well."""

    def change(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
        others = {name: each for name, each in state.traffic.items() if name != label}
        new = others if traffic is None else {**others, label: traffic}
        return state.model_copy(update={"traffic": new}), entry

    here = registry.state(model).labels[label]
    facts = {"kind": "label", "label": label, "from_version": here, "to_version": here}
    registry._change(model, change, registry._entry(by="test", op_id=None, **facts))


def held(*versions: str, models: Iterable[str] = ("intent",)) -> tuple[ModelStatus, ...]:
    """Return what a pod says that has these versions of models ready."""
    return tuple(
        ModelStatus(id=f"run-{name}-{version}", name=name, version=version, state="ready")
        for name in models
        for version in versions
    )
