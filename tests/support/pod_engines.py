"""What runs a pod's manifest in a test: containers under Podman, or the same entry points as plain processes.

Both start the Deployments of deploy/kubernetes/base on a machine of a test's network, with the environment and the
volumes that the manifest says; what each has to change is listed in its `start`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from support.manifests import (
    Manifest,
    containers_of,
    not_restarted,
    on_the_namespace,
    plain_environment,
    runtime_beside_sidecar,
    secrets_as_directories,
    volumes_of_its_own,
    with_images,
)
from support.namespaces import Network
from support.podman import Podman
from support.up import processes_of, wait_until

__all__ = ["Cluster", "Engine", "PodmanEngine", "ProcessEngine", "RunningPod"]

_END_S = 90.0
"""Longer than any terminationGracePeriodSeconds of ours."""


@dataclass(frozen=True)
class Cluster:
    """What a cluster would know beside the Deployment.

    Attributes:
        network: The machines; each runs one pod.
        config_maps: Values by name.
        secrets: A directory for each by name.
        services: Addresses by the name that DNS would answer for.
    """

    network: Network
    config_maps: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, Path]
    services: Mapping[str, list[str]]

    @property
    def hosts(self) -> str:
        """What stands for the cluster's DNS: the content of /etc/hosts."""
        lines = [f"{address} {name}" for name, found in self.services.items() for address in found]
        return "\n".join(["127.0.0.1 localhost", *lines, ""])


class RunningPod(Protocol):
    """A pod's containers, by the names that the manifest gives them."""

    def kill(self, container: str, number: signal.Signals) -> None:
        """Send a signal to its first process."""

    def wait(self, container: str) -> int:
        """Wait until it has ended and return its exit status."""

    def call(self, container: str, command: list[str]) -> int:
        """Run a command in it, as an exec probe does, and return the exit status."""

    def logs(self) -> str:
        """Return what all of them wrote."""

    def remove(self) -> None:
        """End it at once and leave nothing."""


class Engine(Protocol):
    """Starts pods."""

    def start(self, manifest: Manifest, cluster: Cluster, machine: str) -> RunningPod:
        """Start the pod of a Deployment on one of the network's machines; the manifest is changed."""


class PodmanEngine:
    """The images that this checkout builds, run by `podman play kube`.

    Args:
        podman: Has the images.
        tag: Of the images.
    """

    def __init__(self, podman: Podman, tag: str) -> None:
        self._podman = podman
        self._tag = tag

    def start(self, manifest: Manifest, cluster: Cluster, machine: str) -> PodmanPod:
        """Start a pod; the changes are what Podman 4.3 needs, and why stands with each."""
        with_images(manifest, self._tag)
        plain_environment(manifest, cluster.config_maps)
        secrets_as_directories(manifest, cluster.secrets)
        volumes_of_its_own(manifest)
        runtime_beside_sidecar(manifest)
        not_restarted(manifest)
        on_the_namespace(manifest)
        self._podman.hosts.write_text(cluster.hosts)
        name = manifest["metadata"]["name"]
        file = self._podman.directory / f"{name}.yaml"
        file.write_text(json.dumps(manifest))  # JSON is YAML
        self._podman.run("play", "kube", str(file), prefix=cluster.network.inside(machine))
        return PodmanPod(self._podman, manifest)


class PodmanPod:
    def __init__(self, podman: Podman, manifest: Manifest) -> None:
        self._podman = podman
        self._pod = f"{manifest['metadata']['name']}-pod-0"
        self._containers = [container["name"] for container in containers_of(manifest)]
        volumes = manifest["spec"]["template"]["spec"]["volumes"]
        self._volumes = [volume["name"] for volume in volumes if "emptyDir" in volume]

    def kill(self, container: str, number: signal.Signals) -> None:
        self._podman.run("kill", "--signal", number.name, self.named(container))

    def wait(self, container: str) -> int:
        return int(self._podman.run("wait", self.named(container), timeout_s=_END_S))

    def call(self, container: str, command: list[str]) -> int:
        return self._podman.ask("exec", self.named(container), *command).returncode

    def output(self, container: str, script: str) -> str:
        """Return what a shell script writes in a container."""
        return self._podman.run("exec", self.named(container), "sh", "-c", script).strip()

    def logs(self) -> str:
        asked = [self._podman.ask("logs", self.named(container)) for container in self._containers]
        return "\n".join(done.stdout + done.stderr for done in asked)

    def remove(self) -> None:
        self._podman.ask("pod", "rm", "--force", "--time", "1", self._pod, timeout_s=_END_S)
        self._podman.ask("volume", "rm", "--force", *self._volumes, timeout_s=_END_S)

    def named(self, container: str) -> str:
        """Return Podman's name of a container."""
        return f"{self._pod}-{container}"


class ProcessEngine:
    """The same entry points as processes of this environment.

    Args:
        directory: For volumes and output.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def start(self, manifest: Manifest, cluster: Cluster, machine: str) -> ProcessPod:
        """Start a pod.

        Volumes become directories, and their mount paths in arguments and environment the paths of these. The host
        name and /etc/hosts are the pod's own, by namespaces. Limits, users and read-only mounts are not enforced.
        """
        plain_environment(manifest, cluster.config_maps)
        secrets_as_directories(manifest, cluster.secrets)
        name, spec = manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]
        home = self._directory / name
        home.mkdir(parents=True)
        volumes = {}
        for volume in spec["volumes"]:
            path = Path(volume["hostPath"]["path"]) if "hostPath" in volume else home / volume["name"]
            path.mkdir(exist_ok=True)
            volumes[volume["name"]] = str(path)
        hosts = home / "hosts"
        hosts.write_text(cluster.hosts)
        pod = ProcessPod(home)
        for container in containers_of(manifest):
            mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
            words = [_moved(word, mounts) for word in container["args"]]
            own = f'hostname {shlex.quote(name)} && mount --bind {shlex.quote(str(hosts))} /etc/hosts && exec "$@"'
            command = [
                *cluster.network.inside(machine),
                *("unshare", "--mount", "--uts", "sh", "-c", own, "sh"),
                *(sys.executable, "-m", "marway", *words, "--home", str(home)),
            ]
            environment = {variable["name"]: _moved(variable["value"], mounts) for variable in container["env"]}
            pod.start(container["name"], command, _clean_environment() | environment, mounts)
        return pod


class ProcessPod:
    def __init__(self, home: Path) -> None:
        self._home = home
        self._log = (home / "log").open("wb")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._mounts: dict[str, dict[str, str]] = {}

    def start(self, container: str, command: list[str], environment: dict[str, str], mounts: dict[str, str]) -> None:
        """Start a container's process."""
        self._mounts[container] = mounts
        self._processes[container] = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=self._home
        )

    def kill(self, container: str, number: signal.Signals) -> None:
        self._processes[container].send_signal(number)

    def wait(self, container: str) -> int:
        return self._processes[container].wait(_END_S)

    def call(self, container: str, command: list[str]) -> int:
        program = sys.executable if command[0] == "python" else command[0]
        words = [_moved(word, self._mounts[container]) for word in command[1:]]
        return subprocess.run([program, *words], timeout=60).returncode

    def logs(self) -> str:
        return (self._home / "log").read_text()

    def remove(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(10)
        wait_until(lambda: not _killed(self._home), timeout_s=20, what=f"nothing of {self._home} left")
        self._log.close()
        shutil.rmtree(self._home)  # an emptyDir ends with its pod


def _killed(home: Path) -> bool:
    left = processes_of(home)
    for process in left:
        process.kill()
    return bool(left)


def _moved(text: str, mounts: Mapping[str, str]) -> str:
    """Replace mount paths by directories, in one pass: a directory's path may have a mount path in it."""
    paths = "|".join(re.escape(path) for path in sorted(mounts, key=len, reverse=True))
    return re.sub(paths, lambda found: mounts[found[0]], text)


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MARWAY_"))}
