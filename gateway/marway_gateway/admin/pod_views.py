"""What the admin routes answer of pods, with examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import Field
from pydantic.config import JsonDict

from marway.wire.pods import ModelStatus, PodStatus
from marway_gateway.admin.views import MODEL_EXAMPLE, AdminView
from marway_gateway.json_models import examples
from marway_gateway.placement import Pod

__all__ = ["PodModelView", "PodView", "PodsView", "UnloadView"]

_STATUS: Final[JsonDict] = {"name": "a", "boot_id": "7c1e", "backend": "torchserve", "ready": True}
_POD: Final[JsonDict] = {
    "name": "a",
    "url": "http://10.0.0.7:9000",
    "eligible": True,
    "trouble": None,
    "ejected_for_s": None,
    "ejections": 0,
    "requests_in_flight": 2,
    "status": _STATUS,
}


class PodModelView(AdminView):
    """A version on one pod."""

    model_config = examples({"pod": "pod-0", "eligible": True, "trouble": None, "model": MODEL_EXAMPLE})

    pod: str
    node: str | None = Field(default=None, description="Of a graph: the node that asks it.")
    eligible: bool = Field(description="Whether the pod gets requests.")
    trouble: str | None = Field(description="Why it gets none.")
    model: ModelStatus | None = Field(description="The version there; null where it was never wanted.")


class PodsView(AdminView):
    """Where a version is. Pods are in the version's order: requests go to the first that can take them."""

    model_config = examples(
        {
            "model": "intent",
            "version": "1.1",
            "id": "run-8",
            "pods": [{"pod": "pod-0", "eligible": True, "trouble": None, "model": MODEL_EXAMPLE}],
        }
    )

    model: str
    version: str
    id: str
    pods: tuple[PodModelView, ...]


class UnloadView(AdminView):
    """A version that was unloaded, and what it is now on each pod that was asked."""

    model_config = examples(
        {"model": "intent", "version": "1.1", "pods": {"pod-0": {**MODEL_EXAMPLE, "state": "absent"}}}
    )

    model: str
    version: str
    pods: Mapping[str, ModelStatus]


class PodView(AdminView):
    """One pod as this gateway sees it. Times in seconds."""

    model_config = examples(_POD)

    name: str
    url: str
    eligible: bool = Field(description="Whether it gets requests.")
    trouble: str | None = Field(description="Why it gets none.")
    ejected_for_s: float | None = Field(description="How much longer it is ejected; null when it is not.")
    ejections: int = Field(description="Ejections in a row; each lasts longer.")
    requests_in_flight: int = Field(description="Of this gateway alone.")
    status: PodStatus | None = Field(description="What the pod said of itself last; null before its first answer.")

    @classmethod
    def of(cls, pod: Pod, now: float) -> PodView:
        """Return the view of a pod at ``now``, by the pods' clock."""
        trouble = pod.trouble(now)
        left_s = round(pod.ejected_until - now, 1) if pod.ejected(now) else None
        return cls(
            name=pod.name,
            url=pod.url,
            eligible=trouble is None,
            trouble=trouble,
            ejected_for_s=left_s,
            ejections=pod.ejections,
            requests_in_flight=pod.requests_in_flight,
            status=pod.status,
        )
