"""Each kind of model server with what the tests of releases need of it: a new backend is a module and a line here."""

from __future__ import annotations

from support.kinds.grpc_predictor import GrpcPredictorKind
from support.kinds.http import BentoMLKind, LitServeKind
from support.kinds.kind import Kind
from support.kinds.mms import MmsKind
from support.kinds.native import NativeKind, TorchServeKind
from support.kinds.open_inference import MLServerKind, TritonKind

__all__ = ["KINDS", "Kind"]

_ALL: tuple[Kind, ...] = (
    NativeKind(),
    TorchServeKind(),
    TritonKind(),
    MLServerKind(),
    MmsKind(),
    LitServeKind(),
    BentoMLKind(),
    GrpcPredictorKind(),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
