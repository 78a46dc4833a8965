"""What the admin routes take and answer, with examples."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from marway.proofs.origins import CopyOrigin
from marway.protection.contracts import ContractChange, ContractReport
from marway.protection.labels import ProtectionChange
from marway.records import HistoryEntry, ModelState, VersionRecord
from marway.serving import ServingSettings
from marway.traffic import RolloutChange
from marway.wire.comparison import Comparison
from marway.wire.pods import LoadReport
from marway_gateway.admin.loading import PodLoad
from marway_gateway.json_models import JsonModel, examples

__all__ = [
    "MODEL_EXAMPLE",
    "AdminView",
    "ChangeView",
    "LabelMove",
    "LoadView",
    "PodLoadView",
    "ReleaseView",
    "RollbackMove",
    "ServingChangeView",
    "ServingPatch",
    "ServingSet",
    "ServingView",
]

Note = Annotated[str | None, Field(max_length=1000, description="Why, for the history.")]
Currently = Annotated[str | None, Field(max_length=128, description="Only if the label points at this version now.")]

_CHANGE: Final[JsonDict] = {
    "model": "intent",
    "generation": 7,
    "op_id": "01JD0Z6Y8Q6V5T4S3R2P1N0M9K",
    "at": "2026-01-31T12:00:00Z",
    "by": "ana@laptop",
    "kind": "label",
    "label": "PROD",
    "from": "1.0",
    "to": "1.1",
    "note": None,
    "forced": False,
    "serving": None,
    "rollout": None,
    "protection": None,
    "contract": None,
    "approved_by": None,
}
MODEL_EXAMPLE: Final[JsonDict] = {"id": "run-8", "name": "intent", "version": "1.1", "state": "ready", "workers": 1}
_LOAD: Final[JsonDict] = {
    "pod": "pod-0",
    "proved": True,
    "report": {"model": MODEL_EXAMPLE, "examples": 6, "duration_s": 0.41, "server": "torchserve"},
}
_CONTRACTS: Final[JsonDict] = {
    "version": "1.1",
    "pod": "pod-0",
    "contracts": {"search": 3},
    "broken": [],
    "proved": True,
}
_COMPARISON: Final[JsonDict] = {
    "version": "1.1",
    "base": "1.0",
    "pod": "pod-0",
    "inputs_of": "1.0",
    "inputs": 6,
    "compared": 6,
    "equal": 5,
    "differences": ['example 2: at label: "timer" was expected, "alarm" came'],
    "p50_s": 0.0021,
    "base_p50_s": 0.0019,
}


class AdminView(JsonModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())


class LabelMove(AdminView):
    """Where a label goes."""

    model_config = examples({"version": "1.1", "if_currently": "1.0", "note": "better on short sentences"})

    version: str = Field(max_length=128, description="A version; it must be published.", examples=["1.1"])
    if_currently: Currently = None
    note: Note = None
    force: bool = Field(default=False, description="Without a pod that loads and proves it first; the history says so.")


class RollbackMove(AdminView):
    """How a label is moved back."""

    model_config = examples({"if_currently": "1.1", "note": "1.1 mistakes alarms for timers"})

    to: str | None = Field(
        default=None,
        max_length=128,
        description="A version that had the label before; without it, the newest release is undone.",
        examples=["1.0"],
    )
    if_currently: Currently = None
    note: Note = None


class ServingSet(ServingSettings):
    """Serving settings to override; those that are left out stay as they are."""

    model_config = ConfigDict(extra="forbid", **examples({"pinned": True, "max_batch_rows": 8}))


class ServingPatch(AdminView):
    """A change of serving settings."""

    model_config = examples({"version": "1.1", "set": {"pinned": True}, "unset": ["max_batch_rows"]})

    version: str = Field(
        default="*", max_length=128, description="Which version, or `*` for all.", examples=["*", "1.1"]
    )
    set: ServingSet = Field(default=ServingSet(), description="Settings and their new values.")
    unset: tuple[str, ...] = Field(
        default=(), max_length=100, description="Settings whose override goes, so that the record's value counts again."
    )
    note: Note = None


class ServingChangeView(AdminView):
    """What a change did to the overrides of a version, or of `*`."""

    model_config = examples({"version": "*", "set": {"pinned": True}, "unset": []})

    version: str
    set: ServingSettings = Field(description="Only what was set.")
    unset: tuple[str, ...]


class ChangeView(AdminView):
    """One acknowledged change of a model, as its history has it."""

    model_config = examples(_CHANGE)

    model: str
    generation: int
    op_id: str
    at: datetime
    by: str
    kind: Literal["label", "rollback", "serving", "tombstone"]
    label: str | None
    from_version: str | None = Field(alias="from", description="Where the label was; the version that was deleted.")
    to_version: str | None = Field(alias="to", description="Where the label is now.")
    note: str | None
    forced: bool
    serving: ServingChangeView | None
    rollout: RolloutChange | None = Field(default=None, description="What it did to a rollout, or to shadow copies.")
    protection: ProtectionChange | None = Field(default=None, description="What it did to a label's protection.")
    contract: ContractChange | None = Field(default=None, description="What it did to consumers' contracts.")
    copied: CopyOrigin | None = Field(default=None, description="Where a version was copied from.")
    approved_by: tuple[str, ...] | None = Field(default=None, description="Who had agreed to the move.")
    undone: int | None = Field(
        default=None, description="How many releases a rollback to a named version undid; null for any other change."
    )

    @classmethod
    def of(cls, model: str, entry: HistoryEntry, **more: Any) -> Self:
        """Return the view of a history entry."""
        fields: dict[str, Any] = {
            name: getattr(entry, name) for name in ChangeView.model_fields if name not in ("model", "serving")
        }
        serving = entry.serving
        if serving is not None:
            settings = ServingSettings.model_validate(serving.set)
            fields["serving"] = ServingChangeView(version=serving.version, set=settings, unset=serving.unset)
        return cls(model=model, **{"serving": None, **fields, **more})


class DeletionView(AdminView):
    """A model that was deleted."""

    model_config = examples(
        {"model": "intent", "deleted": [{**_CHANGE, "kind": "tombstone", "label": None, "from": "1.0", "to": None}]}
    )

    model: str
    deleted: tuple[ChangeView, ...] = Field(description="A change for each version; none where all were gone before.")


class PodLoadView(AdminView):
    """What came of a load on one pod."""

    model_config = examples(_LOAD)

    pod: str = Field(description="Its name; `gateway` for a graph, which no pod has.")
    proved: bool = Field(description="Whether a proof of this load was stored.")
    report: LoadReport

    @classmethod
    def of(cls, load: PodLoad) -> PodLoadView:
        """Return the view of a load."""
        return cls(pod=load.where, proved=load.proof is not None, report=load.report)


class ReleaseView(ChangeView):
    """A label that was moved, where its version was loaded before, and how it compares with the one before it."""

    model_config = examples({**_CHANGE, "loads": [_LOAD], "comparison": _COMPARISON, "contracts": _CONTRACTS})

    loads: tuple[PodLoadView, ...] = Field(description="None for a release that was forced.")
    comparison: Comparison = Field(description="With the version that the label pointed at before.")
    contracts: ContractReport | None = Field(
        default=None,
        description="Which contracts of consumers it was asked just now; null for a release that was forced.",
    )


class ServingView(AdminView):
    """How a model's versions are served now."""

    model_config = examples(
        {
            "name": "intent",
            "overrides": {"*": {"pinned": True}},
            "serving": {"1.0": {"min_workers": 1, "pinned": True}},
            "change": None,
        }
    )

    name: str
    overrides: dict[str, ServingSettings] = Field(description="By version, or `*` for all: only what is overridden.")
    serving: dict[str, ServingSettings] = Field(description="By version: the record's settings under the overrides.")
    change: ChangeView | None = Field(description="What was changed just now; null where settings were only asked for.")

    @classmethod
    def of(cls, name: str, state: ModelState, records: list[VersionRecord], change: ChangeView | None) -> ServingView:
        """Return the view; every setting in `serving` is given, so that none is left out of the answer."""
        served = {
            record.version: ServingSettings.model_validate(state.serving_for(record).model_dump()) for record in records
        }
        return cls(name=name, overrides=dict(sorted(state.serving.items())), serving=served, change=change)


class LoadView(AdminView):
    """A version that was loaded, and on which pods."""

    model_config = examples({"model": "intent", "version": "1.1", "loads": [_LOAD]})

    model: str
    version: str
    loads: tuple[PodLoadView, ...] = Field(description="The pod that decided whether it went well comes first.")
