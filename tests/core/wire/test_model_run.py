"""The one header that says how the model server ran a request."""

from __future__ import annotations

import pytest

from marway.wire.model_run import UNKNOWN, ModelRun


@pytest.mark.parametrize("finite", [True, False, None])
def test_as_it_was_written(finite: bool | None) -> None:
    run = ModelRun(0.000_25, 1.5, 8, finite)
    assert run.header() == f"250,1500000,8,{'' if finite is None else int(finite)}"
    assert ModelRun.parse(run.header().encode()) == run


@pytest.mark.parametrize("said", [None, b"", b"1,2,3", b"1,2,3,4", b"1,2,3,1,5", b"a,2,3,", b"1,2,\xff,"])
def test_what_is_none(said: bytes | None) -> None:
    """What no sidecar of this version says costs no answer: nobody knows then."""
    assert ModelRun.parse(said) == UNKNOWN
