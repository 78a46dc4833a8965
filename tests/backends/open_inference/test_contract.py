"""The backend keeps the contract over the real Triton and the real MLServer, by REST and by gRPC.

Loads over REST and predictions over gRPC: test_requests.py. Fast tests without a server:
tests/sidecar/backends/test_open_inference_*.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from backends.open_inference.subjects import MLServerSubject, OpenInferenceSubject, TritonSubject
from marway_sidecar.backends.contract import CHECKS, Check, run_check
from support.every import usual
from support.servers import running_mlserver, running_triton

pytestmark = [pytest.mark.extended, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=usual("triton-grpc", "mlserver-rest", more=["triton-rest", "mlserver-grpc"]))
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenInferenceSubject]:
    name, _, over = request.param.partition("-")
    directory = tmp_path_factory.mktemp(request.param)
    if name == "triton":
        with running_triton(directory / "server") as server:
            yield TritonSubject(server, directory, over=over)
    else:
        with running_mlserver(directory / "server", load_models_at_startup=False) as server:
            yield MLServerSubject(server, directory, over=over)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract(check: Check, subject: OpenInferenceSubject) -> None:
    """Each check of the contract suite holds for both servers, whichever way they are asked."""
    await asyncio.wait_for(run_check(check, subject), 60)
