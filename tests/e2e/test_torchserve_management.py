"""TorchServe's management API with real parts: a gateway process, a pod of the engine `native`, archives published.

The calls are those of mlflow-torchserve 0.1: a store that client and server share, `url` as a path in it, paging by
token, `all` to find the newest version, `set-default` with an empty body.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from marway.registry import open_registry
from support.gateways import GatewayProcess
from support.torchserve import archive, pod
from support.torchserve_collection import COLLECTION, DIFFERENT, MODELS
from support.up import wait_until

# What is fast of it: tests/gateway/surfaces/test_torchserve_managing.py
pytestmark = [pytest.mark.e2e, pytest.mark.extended, pytest.mark.timeout(300)]

HANDLER = """
class Said:
    def initialize(self, context):
        self.version = context.manifest["model"]["modelVersion"]

    def handle(self, data, context):
        return [self.version] * len(data)
"""


class Managed(NamedTuple):
    """A gateway whose admin port has the API, and the store that it shares with its clients."""

    gateway: GatewayProcess
    admin: httpx.Client
    store: Path


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    home = tmp_path_factory.mktemp("managed")
    registry, store = f"file://{home}/registry", home / "store"
    open_registry(registry).create()
    (home / "pod").mkdir()
    for name in MODELS:
        archive(store, name, HANDLER, file=f"{name}.mar")
    settings = {
        "torchserve_management": "true",
        "torchserve_management_sources": f"file://{store}",
        "admin_grpc_port": 0,
    }
    with (
        pod(home / "pod", registry, engine="native") as url,
        GatewayProcess(home, registry=registry, pods=[f"pod-0={url}"], **settings) as gateway,
        httpx.Client(base_url=gateway.addresses["admin"], timeout=60, trust_env=False) as admin,
    ):
        yield Managed(gateway, admin, store)


def test_torchserves_own_collection(managed: Managed) -> None:
    """72 of the 82 requests of TorchServe's Postman collection are answered as it says; the others as is listed."""
    url = f"file://{managed.store}/"
    other = {}
    for asked in COLLECTION:
        answer = managed.admin.request(asked.method, "/" + asked.path.format(url=url))
        if answer.status_code != asked.status:
            other[asked.about] = answer.status_code
    assert other == {about: status for about, (status, _) in DIFFERENT.items()}
    assert (len(COLLECTION), len(other)) == (82, 10)


def test_a_client_deploys_updates_and_deletes(managed: Managed) -> None:
    """mlflow-torchserve's calls: two versions are deployed, one is scaled and made the default, and one deleted."""
    admin, store = managed.admin, managed.store

    def create(version: str) -> None:
        archive(store, "deployed", HANDLER, version=version, file="deployed.mar")  # the client overwrites it
        answer = admin.post(f"/models?url={store}/deployed.mar&initial_workers=1")
        assert answer.status_code == 200, answer.text

    def versions() -> list[float]:
        return [float(each["modelVersion"]) for each in get("deployed/all")]

    def get(name: str) -> list[dict[str, Any]]:
        answer = admin.get(f"/models/{name}")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    def predicted(path: str = "deployed") -> str:
        return httpx.post(f"{managed.gateway.url}/predictions/{path}", json={}, timeout=60, trust_env=False).text

    assert admin.get("/models/deployed/all").status_code == 404
    create("1.0")
    create(str(max(versions()) + 1.0))
    assert (versions(), predicted(), predicted("deployed/2.0")) == ([1.0, 2.0], "1.0", "2.0")
    assert admin.put("/models/deployed/2.0?min_worker=2&synchronous=true").status_code == 200
    assert len(get("deployed/2.0")[0]["workers"]) == 2
    assert admin.put("/models/deployed/2.0/set-default").status_code == 200
    assert (predicted(), get("deployed")[0]["modelVersion"]) == ("2.0", "2.0")
    assert admin.delete("/models/deployed/1.0").status_code == 200
    # What pods have is what they last said, which may be from while the version was on its way out.
    wait_until(lambda: get("deployed/1.0")[0]["workers"] == [], timeout_s=60, what="1.0 without workers")
    listed, token = [], 0
    while True:
        page = admin.get("/models", params={"limit": 2, "next_page_token": token}).json()
        listed += [each["modelName"] for each in page["models"]]
        if "nextPageToken" not in page:
            break
        token = page["nextPageToken"]
    assert listed == sorted(["deployed", "densenet161", "mnist", "resnet-18", "resnet152", "squeezenet1_1"])
