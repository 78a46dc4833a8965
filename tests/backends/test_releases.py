"""Releases, evictions and killed servers under load, with every kind of model server behind the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.every import usual
from support.kind_cluster import KindCluster
from support.kinds import KINDS

# With real servers of other makers; the same with a server of the tests' own: tests/sidecar/lifecycle, tests/gateway.
pytestmark = [pytest.mark.extended, pytest.mark.timeout(300)]


_USUAL = ("grpc-predictor", "http-litserve", "mlserver", "mms", "triton")
"""One of each backend that other tests do not release and kill."""


@pytest.fixture(scope="module", params=usual(*_USUAL, more=sorted(KINDS.keys() - _USUAL)))
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KindCluster]:
    """Two pods of a kind behind a gateway."""
    kind = KINDS[request.param]
    with KindCluster(tmp_path_factory.mktemp(kind.name), [kind, kind]) as running:
        yield running


def test_it_is_released_rolled_back_and_evicted_under_load(cluster: KindCluster) -> None:
    """A model is released, moved to a second version, rolled back and evicted from every pod; under a steady load no
    request fails, and each is answered by the version that the label is at.
    """
    cluster.publish("moved", "1.0")
    cluster.publish("moved", "2.0")
    cluster.release("moved", "1.0")
    with cluster.load("moved") as load:
        with load.moving_to("1.0"):
            load.wait_for_more(10)
        with load.moving_to("2.0"):
            cluster.release("moved", "2.0")
        load.wait_for_version("2.0")
        load.wait_for_more(20)
        with load.moving_to("1.0"):
            cluster.rollback("moved")
        load.wait_for_version("1.0")
        load.wait_for_more(20)
        for _ in range(2):
            cluster.unload("moved", "1.0")  # of every pod; the next request has it loaded again
            load.wait_for_more(20)


def test_nobody_notices_a_server_that_is_killed(cluster: KindCluster) -> None:
    """The server that a model's requests go to is killed under load, with all that it started: another pod answers.
    Started again, as kubelet would, it serves what it had without anybody touching its sidecar.
    """
    cluster.publish("killed", "1.0")
    cluster.release("killed", "1.0")
    cluster.wait_until_all_answer("killed", "1.0")
    with cluster.load("killed") as load:
        load.wait_for_more(20)
        pod = cluster.asked_first("killed", "1.0")
        pod.server.kill()
        cluster.wait_until_eligible(False, pod)
        load.wait_for_more(20)
        pod.server.start()
        cluster.wait_until_all_answer("killed", "1.0")
        load.wait_for_more(20)


def test_more_models_than_fit_take_turns(cluster: KindCluster) -> None:
    """With memory for one version in each of two pods, three models asked by two clients, and one of them by a steady
    load beside, are all answered, each time one is evicted for another.
    """
    models = ["many-0", "many-1", "many-2"]
    for model in models:
        cluster.publish(model, "1.0")
        cluster.registry.release(model, "1.0", label="PROD", by="test")
    assert cluster.ask(models[0]) == "1.0"
    takes = max(each["memory_bytes"] for pod in cluster.pods for each in pod.models().values())
    for pod in cluster.pods:
        pod.start_sidecar(memory_budget_bytes=takes * 3 // 2)
    cluster.wait_until_eligible(True, *cluster.pods)
    with cluster.load(models[0], rate=2) as load, ThreadPoolExecutor(2) as clients:
        said = list(clients.map(cluster.ask, [*models, *models[:2]]))
        load.wait_for_more(1)
    assert said == ["1.0"] * len(said)
    assert sum(pod.metric("marway_sidecar_model_evictions_total") for pod in cluster.pods) > 0
