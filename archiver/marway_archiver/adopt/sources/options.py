"""What whoever takes over a source says beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from marway.refs import DEFAULT_LABEL

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a source is to be read.

    Attributes:
        scratch: A directory of this run's own, for what has to be fetched or made; gone afterwards.
        label: What points at the version that the old server answers with where none is named.
        version: Of models whose source says none.
        model_store: Of TorchServe, where its archives are, in place of what its configuration says.
        storage: Where the files of a storage are that this machine cannot ask, by how their addresses begin, such as
            ``pvc://models``.
    """

    scratch: Path
    label: str = DEFAULT_LABEL
    version: str = "1"
    model_store: Path | None = None
    storage: Mapping[str, Path] = field(default_factory=dict)
