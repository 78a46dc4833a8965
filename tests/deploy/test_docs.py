"""What docs/kubernetes.md has its reader type is about things that the manifests have."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from marway_gateway.settings import GatewaySettings
from marway_runtime.settings import RuntimeSettings
from marway_sidecar.settings import SidecarSettings
from support.kubernetes.objects import (
    container,
    containers,
    environment,
    name_of,
    named_namespace,
    of_kind,
    pod_of,
    quantity,
)
from support.kubernetes.render import (
    COMBINATIONS,
    COMPONENTS,
    KUBERNETES,
    OVERLAYS,
    ROOT,
    combination,
    documents,
    overlay,
    render,
    with_component,
)

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
_KINDS = {"deploy": "Deployment", "svc": "Service"}


def commands() -> Iterator[str]:
    for fence in re.findall(r"^```shell\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        yield from (line for line in fence.splitlines() if line.startswith("kubectl "))
    yield from re.findall(r"`(kubectl [^`]+)`", PAGE)


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_commands_name_what_is_there(command: str) -> None:
    """Directories, namespace, Deployments, Services, containers and labels of a command exist."""
    words = shlex.split(command)
    found = overlay("s3")
    for option, value in pairwise(words):
        if option == "-k":
            assert (ROOT / value / "kustomization.yaml").is_file()
        if option == "-n":
            assert value == named_namespace(found)
        if option == "-c" and "logs" in words:
            assert value in {each.name for each in containers(found)}
        if option == "-l" and not value.startswith("kubernetes.io/"):
            name, _, wanted = value.partition("=")
            assert any(each["metadata"].get("labels", {}).get(name) == wanted for each in of_kind(found, "Deployment"))
        if option == "-l" and value.startswith("kubernetes.io/service-name="):
            assert value.partition("=")[2] in map(name_of, of_kind(found, "Service"))
    for kind, name in (word.split("/", 1) for word in words if word.startswith(("deploy/m", "svc/"))):
        assert name in map(name_of, of_kind(found, _KINDS[kind])), f"there is no {_KINDS[kind]} {name}"
    if "port-forward" in words:
        target = next(word for word in words if word.startswith("svc/")).removeprefix("svc/")
        (service,) = (each for each in of_kind(found, "Service") if name_of(each) == target)
        assert int(words[-1]) in {port["port"] for port in service["spec"]["ports"]}


def test_there_are_commands() -> None:
    """The page's own way to install is among what is looked at."""
    assert "kubectl apply -k deploy/kubernetes/overlays/s3" in set(commands())


def test_an_overlay_of_ones_own_does_what_the_page_says(tmp_path: Path) -> None:
    """The example of an overlay renders, and puts in the reader's images and bucket."""
    (example,) = (
        each for each in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "images:" in each
    )
    kustomization = yaml.safe_load(example)
    (base,) = kustomization["resources"]
    place = ROOT / base.removeprefix("../marway/")
    kustomization["resources"] = [os.path.relpath(place, tmp_path.resolve())]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    found = documents(render(tmp_path))
    assert {each.spec["image"].rpartition(":")[0] for each in containers(found)} == {
        f"registry.example.com/marway-{name}" for name in ("gateway", "runtime", "sidecar")
    }
    assert environment(found, container(found, "sidecar"))["MARWAY_REGISTRY"] == "s3://your-bucket/registry"


@pytest.mark.parametrize(
    ("name", "told"),
    [("s3", "3 CPU, 13 GiB of memory and 8.5 GiB of disk"), ("dev", "400m CPU, 3.5 GiB and 4.25 GiB of disk")],
)
def test_what_an_installation_requests_is_what_the_page_says(name: str, told: str) -> None:
    """The sums of the page are those of the manifests, with two gateways where an autoscaler has their number."""
    sums = dict.fromkeys(("cpu", "memory", "ephemeral-storage"), quantity("0"))
    for deployment in of_kind(overlay(name), "Deployment"):
        pod = pod_of(deployment)
        for each in pod.get("initContainers", []) + pod["containers"]:
            for what in sums:
                sums[what] += deployment["spec"].get("replicas", 2) * quantity(each["resources"]["requests"][what])
    cpu, memory, disk = (quantity(word) for word in re.findall(r"\d[\d.]*m?", told))
    assert list(sums.values()) == [cpu, memory * 2**30, disk * 2**30]
    assert told in PAGE.replace("\n", " ")


def test_every_directory_is_told_of() -> None:
    """Each overlay and component has its line, and none is told of that does not exist."""
    first = PAGE.partition("## Install")[0]
    told = {
        name for row in re.findall(r"^\| (`.*?) \|", first, re.MULTILINE) for name in re.findall(r"`([a-z0-9-]+)`", row)
    }
    assert told - {"monitoring"} == {*OVERLAYS, *COMPONENTS} - {"monitoring"}


def test_settings_that_the_page_names_exist() -> None:
    """A variable in the page is a setting of a component."""
    known = {
        f"MARWAY_{name}_{field.upper()}"
        for name, kind in (("GATEWAY", GatewaySettings), ("RUNTIME", RuntimeSettings), ("SIDECAR", SidecarSettings))
        for field in kind.model_fields
    }
    named = set(re.findall(r"MARWAY_(?:GATEWAY|SIDECAR|RUNTIME)_[A-Z_]+[A-Z]", PAGE))
    assert named - known == set()


def test_secrets_that_the_page_makes_are_used() -> None:
    """Each Secret that the reader makes is mounted or served by something, under the key that it is made with."""
    made = set(re.findall(r"create secret (?:generic|tls) ([a-z0-9-]+)", PAGE))
    used = {
        volume["secret"]["secretName"]
        for documents in (*map(overlay, OVERLAYS), *map(with_component, COMPONENTS), *map(combination, COMBINATIONS))
        for each in containers(documents)
        for volume in each.volumes.values()
        if "secret" in volume
    }
    assert made - used == {"marway-tls"}
    assert "secretName: marway-tls" in (KUBERNETES / "components" / "ingress" / "ingress.yaml").read_text()
    assert used <= made
