"""The pod's own manifest at work without Kubernetes: two pods and a gateway, each in a network namespace.

Where Podman can be had the images run, by `podman play kube`; and always, so that it is known to work elsewhere, the
same entry points run as processes with the environment and the volumes of the manifest.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_socket import socket_allow_hosts

from marway.objects import open_store
from marway.registry import Registry
from marway_archiver import publish
from support.manifests import containers_of, deployment
from support.namespaces import Network, missing, network
from support.open_loop import OpenLoop
from support.pod_engines import Cluster, Engine, PodmanEngine, PodmanPod, ProcessEngine, RunningPod
from support.seaweed import seaweed
from support.up import wait_until

HANDLER = Path(__file__).parents[2] / "e2e" / "models" / "probe.py"
PODS = ("pod-a", "pod-b")
GATEWAY = "gateway"
RATE = 30
WAIT_S = 60
# Where `httpGet` probes of each container go.
PORTS = {"gateway": {"http": 8000, "admin": 8001}, "sidecar": {"http": 9000}}
# Extended: the same as tests/e2e/test_processes.py and test_release_gateway.py, in containers.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.extended]


@dataclass
class Running:
    """Two pods and a gateway."""

    engine: Engine
    cluster: Cluster
    pods: dict[str, RunningPod] = field(default_factory=dict)

    @property
    def network(self) -> Network:
        return self.cluster.network

    @property
    def url(self) -> str:
        return f"http://{self.network.addresses[GATEWAY]}:8000/predict/probe"

    def start(self, name: str) -> None:
        """Start a pod, or the gateway."""
        manifest = deployment(GATEWAY if name == GATEWAY else "pod", name=name)
        self.pods[name] = self.engine.start(manifest, self.cluster, name)

    def remove(self, name: str) -> None:
        """End a pod at once; one that did not come up again is gone already."""
        if name in self.pods:
            self.pods.pop(name).remove()

    def serves(self, pod: str) -> bool:
        """Whether a pod has the model ready."""
        try:
            models = httpx.get(f"http://{self.network.addresses[pod]}:9000/models", timeout=10, trust_env=False).json()
        except httpx.TransportError:
            return False
        return any((model["name"], model["state"]) == ("probe", "ready") for model in models)

    def used(self) -> bool:
        """Whether the gateway gives requests to both pods."""
        headers = {"authorization": "Bearer test-token"}
        admin = f"http://{self.network.addresses[GATEWAY]}:8001/pods"
        try:
            shown = httpx.get(admin, headers=headers, timeout=10, trust_env=False).raise_for_status().json()
        except httpx.TransportError:
            return False
        return sum(pod["eligible"] and pod["status"] is not None for pod in shown) == len(PODS)

    def load(self) -> None:
        """Have both pods serve the model."""
        try:
            wait_until(self.used, timeout_s=WAIT_S, what="both pods in rotation")
            for pod in PODS:
                address = f"http://{self.network.addresses[pod]}:9000/models/probe/1.0/load"
                httpx.post(address, timeout=WAIT_S, trust_env=False).raise_for_status()
                wait_until(lambda pod=pod: self.serves(pod), timeout_s=WAIT_S, what=f"{pod} serves")
        except BaseException:
            for name, running in self.pods.items():
                print(f"-- {name}\n{running.logs()[-3000:]}")
            raise


@pytest.fixture(scope="module", params=["podman", "processes"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two pods and a gateway that serve one model out of a real S3 server."""
    if why := missing():
        pytest.skip(why)
    engine: Engine
    if request.param == "podman":
        engine = PodmanEngine(request.getfixturevalue("images"), "test")
        print("\nthe images run, by podman play kube")
    else:
        engine = ProcessEngine(tmp_path_factory.mktemp("pods"))
        print("\nno containers: the same entry points run as processes in network namespaces")
    tokens = tmp_path_factory.mktemp("secrets") / "admin"
    tokens.mkdir()
    (tokens / "tokens").write_text("test-token\n")
    tokens.chmod(0o755)  # pytest's directories are for their owner alone
    with ExitStack() as stack:
        net = stack.enter_context(network([*PODS, GATEWAY]))
        _allow(net)
        s3 = stack.enter_context(seaweed(net.here))
        registry = f"s3://{s3.bucket}/registry"
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in s3.env.items():
            patch.setenv(name, value)
        publish(model_name="probe", version="1.0", handler=str(HANDLER), registry=registry, create_registry=True)
        registered = Registry(open_store(registry))
        registered.set_serving("probe", set_fields={"pods": 2}, by="test")
        registered.release("probe", "1.0", forced=True, by="test")
        settings = {name: value for name, value in s3.env.items() if not name.endswith("_FILE")}
        cluster = Cluster(
            net,
            config_maps={"marway-registry": {"MARWAY_REGISTRY": registry, **settings}},
            secrets={"marway-admin-tokens": tokens},
            services={"marway-pods.marway.svc": [net.addresses[pod] for pod in PODS]},
        )
        started = Running(engine, cluster)
        for name in (*PODS, GATEWAY):
            started.start(name)
            stack.callback(lambda name=name: started.remove(name))
        started.load()
        yield started


@pytest.fixture(autouse=True)
def _reachable(running: Running) -> None:
    """The test may talk to its own namespaces."""
    _allow(running.network)


def _allow(net: Network) -> None:
    socket_allow_hosts(["127.0.0.1", net.here, *net.addresses.values()], allow_unix_socket=True)


def _probes(container: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(kind, probe) for kind, probe in container.items() if kind.endswith("Probe")]


def test_probes_say_that_they_serve(running: Running) -> None:
    """Every probe of the manifests, called as kubelet would, succeeds on what serves."""
    asked = []
    for name in (*PODS, GATEWAY):
        manifest = deployment(GATEWAY if name == GATEWAY else "pod", name=name)
        for container in containers_of(manifest):
            for kind, probe in _probes(container):
                asked.append((container["name"], kind))
                if "exec" in probe:
                    assert running.pods[name].call(container["name"], probe["exec"]["command"]) == 0
                    continue
                port = PORTS[container["name"]][probe["httpGet"]["port"]]
                url = f"http://{running.network.addresses[name]}:{port}{probe['httpGet']['path']}"
                assert httpx.get(url, timeout=10, trust_env=False).status_code == 200, url
    assert {container for container, _ in asked} == {"runtime", "sidecar", "gateway"}
    assert len(asked) == 2 * 4 + 3


def test_it_answers_a_prediction(running: Running) -> None:
    """A prediction goes through the gateway, a sidecar and TorchServe, whose workers see no credentials."""
    answer = httpx.post(running.url, content=b"text", headers={"content-type": "text/plain"}, trust_env=False)
    assert (answer.status_code, answer.text) == (200, "plain text")
    assert answer.headers["x-model-version"] == "1.0"
    secrets = httpx.post(running.url, content=b"secrets", headers={"content-type": "text/plain"}, trust_env=False)
    assert [name for name in secrets.json() if name.startswith("AWS_")] == []


def test_containers_are_locked(running: Running) -> None:
    """Containers run as nobody, on a root that cannot be written, with no capability and their limit of memory."""
    pod = running.pods[PODS[0]]
    if not isinstance(pod, PodmanPod):
        pytest.skip("users, mounts and limits are those of containers; these are processes")
    for container in ("runtime", "sidecar"):
        assert pod.output(container, "id -u; id -g").split() == ["65532", "65532"]
        assert pod.output(container, "grep CapEff /proc/1/status").split()[1] == "0" * 16
        assert pod.call(container, ["touch", "/opt/venv/x"]) != 0
        assert pod.call(container, ["touch", "/tmp/x"]) == 0
    assert pod.call("runtime", ["touch", "/var/lib/marway/store/x"]) != 0
    assert pod.call("sidecar", ["touch", "/var/lib/marway/store/x"]) == 0
    limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2> /dev/null || true"
    assert pod.output("runtime", limit).split() == [str(4 << 30)]
    assert pod.output("sidecar", limit).split() == [str(1 << 30)]


def test_the_first_process_is_marway(running: Running) -> None:
    """`marway` gets the signals itself, every other process of a container descends from it, and none is a zombie."""
    pod = running.pods[PODS[0]]
    if not isinstance(pod, PodmanPod):
        pytest.skip("a container's processes are a tree of their own; these are processes")
    script = "cd /proc && for p in [0-9]*; do echo $p $(cut -d' ' -f3,4 < $p/stat) $(tr '\\0' ' ' < $p/cmdline); done"
    for container, verb in (("runtime", "runtime"), ("sidecar", "sidecar")):
        shown = [line.split() for line in pod.output(container, script).splitlines()]
        first = next(words for words in shown if words[0] == "1")
        assert any(word.endswith("/marway") for word in first), first
        assert verb in first
        assert [words for words in shown if words[1] == "Z"] == []


@pytest.mark.parametrize("how", ["one after the other", "at once"])
def test_sigterm_to_both_containers_loses_nothing(running: Running, how: str) -> None:
    """SIGTERM to sidecar and runtime under load, as Kubernetes does it and both at once: no request fails."""
    leaving = PODS[0] if how == "at once" else PODS[1]
    pod = running.pods[leaving]
    with OpenLoop([running.url], rate=RATE, body="text") as load:
        load.wait_for_more(2 * RATE)
        statuses = []
        if how == "at once":
            for container in ("sidecar", "runtime"):
                pod.kill(container, signal.SIGTERM)
            statuses = [pod.wait(container) for container in ("sidecar", "runtime")]
        else:
            for container in ("sidecar", "runtime"):
                pod.kill(container, signal.SIGTERM)
                statuses.append(pod.wait(container))
        load.wait_for_more(2 * RATE)
        said = pod.logs()
        running.remove(leaving)
        running.start(leaving)
        running.load()
        load.wait_for_more(2 * RATE)
    print(f"\n{len(load.samples)} requests, longest {max(sample.took_s for sample in load.samples):.2f} s")
    assert load.failed == [], said[-3000:]
    assert statuses == [0, 0], said[-3000:]
