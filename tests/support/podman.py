"""Podman as tests use it: a storage of its own, no registry, no systemd, images built from this checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["BASE_IMAGE", "IMAGES", "NoBase", "Podman", "image_size", "missing", "podman"]

ROOT = Path(__file__).parents[2]
BASE_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
IMAGES = {
    "marway-gateway": ("gateway.Containerfile", None),
    "marway-sidecar": ("pod.Containerfile", "sidecar"),
    "marway-runtime-native": ("pod.Containerfile", "runtime-native"),
    "marway-runtime": ("pod.Containerfile", "runtime"),
}
"""Container file and target of each image."""

_TOOLS = ("podman", "runc", "conmon", "catatonit", "mmdebstrap")
# runc, because crun 1.8 fails where both versions of cgroups are mounted; cgroupfs, because systemd may not run here.
_CONFIGURATION = """
[containers]
netns = "host"
base_hosts_file = "HOSTS"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


class NoBase(Exception):
    """There is nothing that images could be built upon."""


class Podman:
    """Runs podman over a storage of its own.

    Args:
        directory: Where everything of it lies.
        driver: Storage driver.

    Attributes:
        hosts: The file from which containers get their /etc/hosts.
    """

    def __init__(self, directory: Path, driver: str) -> None:
        self.directory = directory
        self._driver = driver
        self.hosts = directory / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n")
        (directory / "containers.conf").write_text(_CONFIGURATION.replace("HOSTS", str(self.hosts)))
        (directory / "tmp").mkdir(exist_ok=True)

    def run(self, *arguments: str, prefix: Sequence[str] = (), timeout_s: float = 60) -> str:
        """Run one command and return what it wrote on stdout.

        Args:
            arguments: Of podman.
            prefix: Stands before it, to start it in a network namespace.
            timeout_s: How long it may take, in seconds.

        Raises:
            AssertionError: It failed; the message holds what it said.
        """
        done = self.ask(*arguments, prefix=prefix, timeout_s=timeout_s)
        assert done.returncode == 0, f"podman {' '.join(arguments)}\n{(done.stdout + done.stderr)[-6000:]}"
        return done.stdout

    def ask(
        self, *arguments: str, prefix: Sequence[str] = (), timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run one command that may fail."""
        storage = ["--root", str(self.directory / "storage"), "--runroot", str(self.directory / "run")]
        command = [*prefix, "podman", *storage, "--storage-driver", self._driver, *arguments]
        # Pipes would stay open in what a container leaves running.
        with (self.directory / "stdout").open("w+") as stdout, (self.directory / "stderr").open("w+") as stderr:
            done = subprocess.run(command, stdout=stdout, stderr=stderr, timeout=timeout_s, env=self._environment)
            for stream in (stdout, stderr):
                stream.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, stdout.read(), stderr.read())

    def make_base(self) -> None:
        """Import an image with Debian's own Python under the name of the base image, which only a registry has.

        Raises:
            NoBase: Debian's packages cannot be had.
        """
        archive = self.directory / "base.tar"
        packages = "python3,python3-pip,python3-venv,ca-certificates"
        made = subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "bookworm", str(archive)],
            capture_output=True,
            text=True,
            timeout=240,
            env=self._environment,
        )
        if made.returncode != 0:
            raise NoBase(f"mmdebstrap makes no base image: {made.stderr[-2000:]}")
        self.run("import", "--quiet", str(archive), BASE_IMAGE, timeout_s=120)
        archive.unlink()

    def build(self, image: str, tag: str) -> str:
        """Build an image as docs/kubernetes.md does, and return what was said.

        No layer is pulled; pip finds packages where it finds them on this machine.
        """
        file, target = IMAGES[image]
        arguments = ["--format", "docker", "--network", "host", "--pull-never", *self._pip(), "-t", f"{image}:{tag}"]
        if target is not None:
            arguments += ["--target", target]
        return self.run("build", *arguments, "-f", str(ROOT / "deploy" / file), str(ROOT), timeout_s=400)

    def remove(self) -> None:
        """Remove all containers, images and files."""
        self.ask("pod", "rm", "--force", "--all", "--time", "1", timeout_s=120)
        self.ask("rm", "--force", "--all", "--time", "1", timeout_s=120)
        for mounted in sorted(_mounted_below(self.directory), reverse=True):
            subprocess.run(["umount", "--lazy", mounted], check=False, capture_output=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "CONTAINERS_CONF": str(self.directory / "containers.conf"),
            "TMPDIR": str(self.directory / "tmp"),  # buildah's cache mounts lie there
        }

    def _pip(self) -> list[str]:
        """Return the mounts that show pip in a build the indexes, certificates and cache of this machine."""
        settings = _pip_settings()
        mounts = {Path(path) for value in settings.values() for path in _local_paths(value)}
        configuration = self.directory / "pip.conf"
        cache = self.directory / "no-cache"
        if found := _said_by_pip("cache", "dir"):
            cache, settings["cache-dir"] = Path(found), "/pip-cache"
        cache.mkdir(parents=True, exist_ok=True)
        lines = [f"{name} = {value}" for name, value in settings.items()]
        configuration.write_text("\n".join(["[global]", *lines]) + "\n")
        volumes = [f"{configuration}:/etc/pip.conf:ro", f"{cache}:/pip-cache"]
        volumes += [f"{path}:{path}:ro" for path in sorted(mounts)]
        return [word for volume in volumes for word in ("--volume", volume)]


def missing() -> str | None:
    """Return why there is no container engine here, if so."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "containers without a registry need Linux and root"
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


@contextmanager
def podman(directory: Path) -> Iterator[Podman]:
    """Have a podman over an empty directory for the length of a block, on the fastest storage that works here."""
    for driver in ("overlay", "vfs"):
        engine = Podman(directory, driver)
        if engine.ask("info").returncode == 0:
            break
        shutil.rmtree(directory / "storage", ignore_errors=True)
    try:
        yield engine
    finally:
        engine.remove()


def _pip_settings() -> dict[str, str]:
    """Return pip's settings on this machine by their names in a file, those of the environment above the files'."""
    found: dict[str, str] = {}
    lines = _said_by_pip("config", "list").splitlines()
    for line in sorted(lines, key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        scope, _, name = name.rpartition(".")
        if scope in ("global", "install", ":env:"):
            found[name] = value.strip("'\"").replace("\\n", " ")
    return {name: value for name, value in found.items() if name in _TAKEN}


# Where packages are, and how to get there; the rest is this machine's taste.
_TAKEN = {"cert", "extra-index-url", "find-links", "index-url", "proxy", "timeout", "default-timeout", "trusted-host"}


def _said_by_pip(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else ""


def _local_paths(value: str) -> Iterator[str]:
    for word in value.split():
        path = urlsplit(word).path if word.startswith("file:") else word
        if path.startswith("/") and Path(path).exists():
            # The pages of an index link to files beside it.
            yield str(Path(path).parent) if word.startswith("file:") else path


def _mounted_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{directory}/")]


def image_size(engine: Podman, image: str) -> int:
    """Return the size of an image, its base included, in bytes."""
    found = json.loads(engine.run("image", "inspect", image))
    return int(found[0]["Size"])
