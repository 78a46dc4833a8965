"""Each kind of model server with what the tests of releases need of it: a new backend is a module and a line here.

`KINDS` are those whose backend is installed.
"""

from __future__ import annotations

from support.kinds.kind import Kind
from support.kinds.native import NativeKind, TorchServeKind

__all__ = ["KINDS", "Kind"]

KINDS: dict[str, Kind] = {kind.name: kind for kind in (NativeKind(), TorchServeKind())}
