"""A pod in front of a TorchServe that somebody else runs: its own workers, with tokens as by default."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from marway_archiver import publish
from support.torchserve import StockTorchServe, sidecar
from support.up import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
PROBE = Path(__file__).parent / "models" / "probe.py"


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StockTorchServe]:
    with StockTorchServe(tmp_path_factory.mktemp("own"), tokens=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(stock: StockTorchServe) -> Iterator[httpx.Client]:
    registry = f"file://{stock.home}/registry"
    publish(
        model_name="probe",
        version="1.0",
        handler=str(PROBE),
        registry=registry,
        label="PROD",
        create_registry=True,
    )
    addresses = stock.addresses
    with (
        sidecar(
            stock.home,
            registry,
            "--archive-store",
            str(stock.store),
            torchserve_inference=addresses["inference"],
            torchserve_management=addresses["management"],
            torchserve_grpc_inference=addresses["grpc_inference"],
            torchserve_grpc_management=addresses["grpc_management"],
            torchserve_key_file=stock.key_file,
            torchserve_probe_interval_s=0.1,
        ) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as opened,
    ):
        yield opened


def test_it_serves_as_a_pod_of_ours_does(client: httpx.Client) -> None:
    """Multipart fields, refusals and failures of a model come through its own workers too."""
    answer = client.post("/predict/probe/PROD", files={"left": b"1", "right": b"2"})
    assert (answer.status_code, answer.json()) == (200, {"left": "1", "right": "2"})
    assert answer.headers["x-model-version"] == "1.0"
    failed = client.post("/predict/probe", files={"data": (None, b"boom")})
    assert (failed.status_code, failed.json()["code"]) == (500, "model_error")
    refused = client.post("/predict/probe", files={"data": (None, b"refuse")})
    assert (refused.status_code, refused.json()["code"]) == (400, "model_error")
    said = client.get("/status").json()
    assert (said["ready"], said["server_version"]) == (True, "0.12.0")


def test_it_is_followed_through_a_restart(stock: StockTorchServe, client: httpx.Client) -> None:
    """While it is away the pod is not ready; when it is back, with new tokens, versions are loaded again."""
    assert client.post("/predict/probe", content=b"x").status_code == 200
    before = client.get("/status").json()["boot_id"]
    stock.kill()
    wait_until(lambda: client.get("/readyz").status_code == 503, timeout_s=30, what="the pod is not ready")
    refused = client.post("/predict/probe", content=b"x")
    assert (refused.status_code, refused.json()["code"]) == (503, "runtime_down")
    stock.start()
    wait_until(lambda: client.get("/readyz").status_code == 200, timeout_s=60, what="the pod is ready again")
    answer = client.post("/predict/probe", content=b"x")
    assert answer.status_code == 200, answer.text
    assert client.get("/status").json()["boot_id"] != before
