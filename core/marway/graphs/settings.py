"""Which serving settings mean nothing for what gateways run and read themselves, and for what keeps sequences."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

from marway.errors import InvalidInput
from marway.graphs.document import GRAPH_BACKEND, TABLE_BACKEND
from marway.records import VersionRecord
from marway.serving import ServingSettings

__all__ = ["check_settings"]

_OF_PODS: Final = frozenset(
    {
        "min_workers",
        "max_workers",
        "pods",
        "max_batch_rows",
        "max_batch_bytes",
        "protocol",
        "streaming",
        "nonfinite",
        "cache",
        "idle_unload_s",
        "pinned",
        "pool",
        "engine",
    }
)
"""What is about pods, and the answers that they give; a graph has none, and its nodes' versions have their own."""
_OF_SEQUENCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cache": "an answer depends on what was asked before",
        "fallback": "no other version has its state",
        "max_workers": "it has one worker on each pod (`pods`)",
        "min_workers": "it has one worker on each pod (`pods`)",
        "streaming": "an answer is whole before the next request is begun",
    }
)
"""What a version that keeps sequences has no use for, and why."""
_WRITTEN: Final = frozenset({"max_batch_rows"})
"""What packing a bundle writes into its record unasked."""
_WHY: Final[Mapping[str, str]] = MappingProxyType(
    {
        GRAPH_BACKEND: "is a graph, which gateways run: set it for the models that its nodes ask",
        TABLE_BACKEND: "is a table, which gateways read: it has no serving settings",
    }
)


def check_settings(record: VersionRecord, serving: ServingSettings, names: Collection[str] | None = None) -> None:
    """Refuse serving settings that would have no effect on a graph, a table, or a version that keeps sequences.

    Args:
        record: The version.
        serving: How it is to be served.
        names: The settings that are looked at; None: all that differ from their defaults.

    Raises:
        InvalidInput: One has no effect; the message names it.
    """
    if record.sequences is not None:
        unfit = {name: f"keeps sequences, and {why}" for name, why in _OF_SEQUENCES.items()}
        if serving.max_workers == 1:
            del unfit["max_workers"]
    elif record.backend in _WHY:
        all_names = _OF_PODS if record.backend == GRAPH_BACKEND else ServingSettings.model_fields
        unfit = dict.fromkeys(all_names, _WHY[record.backend])
    else:
        return
    usual = ServingSettings()
    for name in sorted(unfit.keys() - _WRITTEN if names is None else unfit.keys() & set(names)):
        if getattr(serving, name) != getattr(usual, name):
            raise InvalidInput(
                f"serving setting {name!r} has no effect: {record.name} {record.version} {unfit[name]}",
                model=record.name,
                version=record.version,
            )
