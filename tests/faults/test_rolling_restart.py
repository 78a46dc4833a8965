"""A rolling restart of three pods under load loses no request, and no request waits for a model.

Real pods (TorchServe under our runtime, with a sidecar) behind a real gateway that finds them by EndpointSlices. The
API is a stand-in; what the controllers and the kubelet of a cluster do, the test does: a new pod beside the old
ones (maxSurge 1), an old one asked to go only once the new one is ready (maxUnavailable 0, minReadySeconds 0, which is
harder than any other), the sidecar told to stop before the runtime, and each step written into a slice.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from marway.objects import open_store
from marway.registry import Registry
from marway_archiver import publish
from marway_gateway.placement import score
from support.gateways import GatewayProcess, metric
from support.kubernetes_api import Certificates, Credentials, ThreadedSlicesApi, endpoint, slice_of
from support.open_loop import OpenLoop, percentile
from support.pod_processes import Pod
from support.up import wait_until

HANDLER = Path(__file__).parents[1] / "e2e" / "models" / "probe.py"
VERSIONS = [f"{number}.0" for number in range(1, 10)]
RATE = 100
DEADLINE_S = 10.0
HOSTS = [f"127.0.0.{number}" for number in range(2, 8)]
"""An address for each pod, all of the loopback interface: the pods of a Service have the same port."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.allow_hosts(["127.0.0.1", *HOSTS]),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here to make certificates with"),
    pytest.mark.extended,  # test_gateway_faults.py stops pods under load, tests/gateway/discovery/ has the slices
]


@dataclass
class Replica:
    """A pod and its place in the slice."""

    name: str
    host: str
    pod: Pod
    ready: bool = False
    terminating: bool = False


class Deployment:
    """Plays the controllers: pods that come and go, and the EndpointSlice that says so."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack, api: ThreadedSlicesApi, port: int) -> None:
        self.replicas: list[Replica] = []
        self._directory = directory
        self._stack = stack
        self._api = api
        self._port = port
        self._hosts = iter(HOSTS)

    def begin(self, name: str) -> Replica:
        """Start a pod's runtime; it has an address, so it stands in the slice, not ready."""
        pod = Pod(self._directory / name, registry=self._directory / "registry", store=self._directory / "store")
        replica = Replica(name, next(self._hosts), self._stack.enter_context(pod))
        self.replicas.append(replica)
        self.write()
        return replica

    def finish(self, replica: Replica) -> None:
        """Start its sidecar, and note it as ready when its probe says so."""
        replica.pod.start_sidecar(host=replica.host, port=self._port, name=replica.name, lame_duck_s=5)
        replica.ready = True
        self.write()

    def terminate(self, replica: Replica, *, slice_first: bool) -> None:
        """Delete a pod: the slice says that it terminates while it is told so itself, in either order."""
        replica.terminating = True
        if slice_first:
            self.write()
        replica.pod.terminate(sidecar=True)
        self.write()
        replica.pod.terminate(sidecar=False)
        self.replicas.remove(replica)
        self.write()

    def write(self) -> None:
        """Write the slice as the pods are now."""
        endpoints = [
            endpoint(each.name, each.host, ready=each.ready, terminating=each.terminating) for each in self.replicas
        ]
        self._api.do(lambda api: api.put(slice_of("pods-1", endpoints)))


@pytest.fixture
def port() -> int:
    """A port that is free on every address."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[ThreadedSlicesApi, Credentials]]:
    certificates = Certificates(tmp_path / "tls")
    with ThreadedSlicesApi(certificates) as api:
        yield api, Credentials(tmp_path / "serviceaccount", certificates.bundle)


def eligible(gateway: GatewayProcess) -> set[str]:
    """Return the pods that the gateway gives requests to, by their own word."""
    shown = httpx.get(f"{gateway.addresses['admin']}/pods", timeout=30, trust_env=False).json()
    return {pod["name"] for pod in shown if pod["eligible"] and pod["status"] is not None}


def test_fault_rolling_restart(tmp_path: Path, port: int, api: tuple[ThreadedSlicesApi, Credentials]) -> None:
    """Three pods are replaced one by one at 100 requests a second: none fails, and each new pod has loaded what it
    is to serve before it is asked for it."""
    slices, credentials = api
    registry = Registry(open_store((tmp_path / "registry").as_uri()))
    for version in VERSIONS:
        publish(
            model_name="probe",
            version=version,
            handler=str(HANDLER),
            registry=(tmp_path / "registry").as_uri(),
            create_registry=True,
        )
    assert len(registry.versions("probe")) == len(VERSIONS)
    old = [f"marway-pod-6d9c7b5f4d-{number}" for number in range(3)]
    new = [f"marway-pod-84f4c6dd7b-{number}" for number in range(3)]
    homes = {max(new, key=lambda pod: score(pod, "probe", version)) for version in VERSIONS}
    assert homes == set(new), "every new pod is to be the home of something in the end: name them otherwise"
    with contextlib.ExitStack() as stack:
        deployment = Deployment(tmp_path, stack, slices, port)
        first = [deployment.begin(name) for name in old]
        for replica in first:
            deployment.finish(replica)
        gateway = stack.enter_context(
            GatewayProcess(
                tmp_path / "gateway",
                registry=(tmp_path / "registry").as_uri(),
                pods=[f"kubernetes://pods.marway:{port}"],
                environment=slices.api.environment,
                kubernetes_credentials_dir=credentials.directory,
            )
        )
        wait_until(lambda: eligible(gateway) == set(old), timeout_s=60, what="all pods in rotation")
        urls = [f"{gateway.url}/predict/probe/{version}" for version in VERSIONS]
        for url in urls:
            httpx.post(url, content=b"hello", timeout=60, trust_env=False).raise_for_status()
        cold = {replica.name: replica.pod.metric("marway_sidecar_cold_requests_total") for replica in first}
        assert sum(cold.values()) == len(VERSIONS)

        second: list[Replica] = []
        lost_s: list[float] = []
        deadline = {"x-request-timeout-ms": f"{DEADLINE_S * 1000:.0f}"}
        with OpenLoop(urls, rate=RATE, headers=deadline, gateways=1) as load:
            load.wait_for_more(RATE)
            for number, (leaving, name) in enumerate(zip(first, new, strict=True)):
                replica = deployment.begin(name)
                deployment.finish(replica)
                second.append(replica)
                assert leaving.pod.metric("marway_sidecar_cold_requests_total") == cold[leaving.name]
                began = time.monotonic()
                deployment.terminate(leaving, slice_first=number % 2 == 0)
                lost_s.append(time.monotonic() - began)
            wait_until(lambda: eligible(gateway) == set(new), timeout_s=60, what="all new pods in rotation")
            load.wait_for_more(2 * RATE)
        loads = {each.name: each.pod.metric("marway_sidecar_model_loads_total", outcome="ok") for each in second}
        answered = {each.name: each.pod.metric("marway_sidecar_batch_rows_sum") for each in second}
        waited = {each.name: each.pod.metric("marway_sidecar_cold_requests_total") for each in second}
        ahead = metric(gateway.url, "marway_gateway_load_aheads_total", outcome="ok")
    took = [sample.took_s for sample in load.samples]
    print(
        f"\n{len(took)} requests, p50 {percentile(took, 50) * 1000:.1f} ms, p99 {percentile(took, 99) * 1000:.0f} ms, "
        f"longest {max(took):.2f} s; {ahead:.0f} versions loaded ahead; pods ended within {max(lost_s):.1f} s"
    )
    assert load.failed == []
    assert max(took) < DEADLINE_S
    assert waited == dict.fromkeys(new, 0), "requests found a new pod without their version"
    assert all(loads[name] >= 1 and answered[name] >= 1 for name in new)
    assert ahead >= sum(loads.values())
    assert {sample.version for sample in load.samples} == set(VERSIONS)
