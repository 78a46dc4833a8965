"""Which kind of source a path is, and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from marway.errors import InvalidInput
from marway_archiver.adopt.found import Found, Kind
from marway_archiver.adopt.sources.kube.kserve import is_kserve, read_kserve
from marway_archiver.adopt.sources.kube.modelmesh import is_modelmesh, read_modelmesh
from marway_archiver.adopt.sources.mlserver import is_mlserver, read_mlserver
from marway_archiver.adopt.sources.options import Options
from marway_archiver.adopt.sources.torchserve import is_torchserve, read_torchserve
from marway_archiver.adopt.sources.triton import is_triton, read_triton

__all__ = ["KINDS", "read_source"]


class _Reader(NamedTuple):
    """Whether a path is of this kind, what reads it, and what one looks like."""

    knows: Callable[[Path], bool]
    read: Callable[[Path, Options], Found]
    looks: str


KINDS: Final[Mapping[Kind, _Reader]] = {
    "kserve": _Reader(is_kserve, read_kserve, "YAML with an InferenceService"),
    "mlserver": _Reader(is_mlserver, read_mlserver, "a directory with a model-settings.json in it or below"),
    "modelmesh": _Reader(is_modelmesh, read_modelmesh, "YAML with a Predictor, or an InferenceService in its mode"),
    "triton": _Reader(is_triton, read_triton, "a directory of models with config.pbtxt and versions such as 1/"),
    "torchserve": _Reader(is_torchserve, read_torchserve, "a model store, a config.properties or a snapshot (.cfg)"),
}


def read_source(source: Path, options: Options, *, kind: Kind | None = None) -> Found:
    """Say what a source holds; nothing of it is run or changed.

    Raises:
        InvalidInput: It is not there, is of no kind or of several, or cannot be read.
    """
    if not source.exists():
        raise InvalidInput(f"{source} does not exist")
    if kind is not None:
        return KINDS[kind].read(source, options)
    fits: list[Kind] = [name for name, reader in KINDS.items() if reader.knows(source)]
    if len(fits) == 1:
        return KINDS[fits[0]].read(source, options)
    if fits:
        raise InvalidInput(f"{source} may be {' or '.join(fits)}: say which with --kind")
    known = "; ".join(f"{name}: {reader.looks}" for name, reader in KINDS.items())
    raise InvalidInput(f"{source} is no source that is known. {known}")
