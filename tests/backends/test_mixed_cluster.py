"""One gateway over pods of four kinds of model servers."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.cli import marway, refused
from support.kind_cluster import KindCluster
from support.kinds import KINDS, Kind
from support.registry import publisher

# With real servers of other makers; where requests for a backend go: tests/gateway/placement.
pytestmark = [pytest.mark.extended, pytest.mark.timeout(300)]

MIXED = ("native", "triton", "mms", "http-litserve")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KindCluster]:
    """A pod of each, and a model for each, released."""
    kinds = [KINDS[name] for name in MIXED]
    with KindCluster(tmp_path_factory.mktemp("mixed"), kinds) as running:
        for kind in kinds:
            running.publish(kind.name, "1.0", kind=kind)
            running.release(kind.name, "1.0")
        yield running


@pytest.mark.parametrize("name", MIXED)
def test_each_model_is_answered_by_its_own_kind(name: str, cluster: KindCluster) -> None:
    """A model's requests go to the pod that serves its backend, which alone has it loaded."""
    kind = KINDS[name]
    assert kind.version_in(_ask(cluster, kind).text) == "1.0"
    having = [pod.kind.name for pod in cluster.pods if (name, "1.0") in pod.models()]
    assert having == [name]


def test_every_backend_is_in_one_list_of_pods(cluster: KindCluster) -> None:
    """`GET /pods` and `marway pods` show each pod with its backend, and the version of its server."""
    pods = {pod["status"]["backend"]: pod for pod in cluster.call("GET", "/pods")}
    assert set(pods) == {KINDS[name].backend for name in MIXED}
    assert all(pod["eligible"] for pod in pods.values())
    shown = marway("pods", MARWAY_GATEWAY_ADMIN_URL=cluster.admin)
    assert shown.returncode == 0, shown.stderr
    for backend, pod in pods.items():
        (line,) = [line for line in shown.stdout.splitlines() if line.split()[0] == pod["name"]]
        assert backend in line.split()


def test_a_model_for_a_backend_that_no_pod_has_is_refused(cluster: KindCluster) -> None:
    """A prediction and a release of it say which backend it is for and which pods there are."""
    publisher(cluster.registry, cluster.home)("saved", "1.0", backend="tensorflow-serving")
    answer = httpx.post(f"{cluster.url('saved')}/1.0", content=b"hello", timeout=60, trust_env=False)
    assert answer.status_code == 503
    assert "tensorflow-serving" in answer.json()["detail"]
    done = marway("release", "saved", "1.0", "--label", "PROD", MARWAY_GATEWAY_ADMIN_URL=cluster.admin)
    assert "tensorflow-serving" in refused(done)


def test_an_archive_for_another_kind_of_server_is_refused(cluster: KindCluster) -> None:
    """A pod that is asked past the gateway for another backend's version names both, and loads nothing."""
    for pod, other in zip(cluster.pods, [*cluster.pods[1:], cluster.pods[0]], strict=True):
        answer = httpx.post(f"{pod.url}/predict/{other.kind.name}/1.0", content=b"x", timeout=60, trust_env=False)
        assert answer.status_code == 503
        detail = answer.json()["detail"]
        assert pod.kind.backend in detail
        assert (other.kind.name, "1.0") not in pod.models()


def _ask(cluster: KindCluster, kind: Kind) -> httpx.Response:
    headers = {"content-type": kind.content_type}
    answer = httpx.post(cluster.url(kind.name), content=kind.body, headers=headers, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer
