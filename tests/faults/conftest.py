"""The cluster that fault tests share; each gets it well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from marway_archiver import publish
from support.fault_cluster import VERSIONS, Cluster
from support.up import Up

MODELS = Path(__file__).parents[1] / "e2e" / "models"


ENGINES = ("torchserve", pytest.param("native", marks=pytest.mark.extended))
"""`make test` has kills and cancels of native workers in tests/sidecar/backends/test_native.py."""


@pytest.fixture(scope="session", params=ENGINES)
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("faults") / "home"
    with Up(home, "--pods", "2", "--engine", request.param) as up:
        for version in VERSIONS:
            publish(model_name="probe", version=version, handler=str(MODELS / "probe.py"), registry=up.registry)
        slow = {"model_name": "slow-load", "version": "1.0", "handler": str(MODELS / "slow_load.py")}
        publish(**slow, registry=up.registry, label="PROD")
        cluster = Cluster(up, request.param)
        cluster.registry.set_serving("probe", set_fields={"pods": 2}, by="test")
        cluster.registry.release("probe", "1.0", forced=True, by="test")
        yield cluster


@pytest.fixture
def cluster(started: Cluster) -> Cluster:
    """The cluster, well and with every version loaded on both pods."""
    started.load()
    return started
