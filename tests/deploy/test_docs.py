"""What docs/kubernetes.md has its reader type is about things that the manifests have."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise

import pytest

from marway_gateway.settings import GatewaySettings
from marway_runtime.settings import RuntimeSettings
from marway_sidecar.settings import SidecarSettings
from support.kubernetes.objects import containers, name_of, named_namespace, of_kind
from support.kubernetes.render import COMPONENTS, KUBERNETES, OVERLAYS, ROOT, overlay, with_component

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
    documents = overlay("s3")
    for option, value in pairwise(words):
        if option == "-k":
            assert (ROOT / value / "kustomization.yaml").is_file()
        if option == "-n":
            assert value == named_namespace(documents)
        if option == "-c" and "logs" in words:
            assert value in {each.name for each in containers(documents)}
        if option == "-l" and not value.startswith("kubernetes.io/"):
            name, _, wanted = value.partition("=")
            assert any(
                each["metadata"].get("labels", {}).get(name) == wanted for each in of_kind(documents, "Deployment")
            )
        if option == "-l" and value.startswith("kubernetes.io/service-name="):
            assert value.partition("=")[2] in map(name_of, of_kind(documents, "Service"))
    for kind, name in (word.split("/", 1) for word in words if word.startswith(("deploy/m", "svc/"))):
        assert name in map(name_of, of_kind(documents, _KINDS[kind])), f"there is no {_KINDS[kind]} {name}"
    if "port-forward" in words:
        target = next(word for word in words if word.startswith("svc/")).removeprefix("svc/")
        (service,) = (each for each in of_kind(documents, "Service") if name_of(each) == target)
        assert int(words[-1]) in {port["port"] for port in service["spec"]["ports"]}


def test_there_are_commands() -> None:
    """The page's own way to install is among what is looked at."""
    assert "kubectl apply -k deploy/kubernetes/overlays/s3" in set(commands())


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
        for documents in (*map(overlay, OVERLAYS), *map(with_component, COMPONENTS))
        for each in containers(documents)
        for volume in each.volumes.values()
        if "secret" in volume
    }
    assert made - used == {"marway-tls"}
    assert "secretName: marway-tls" in (KUBERNETES / "components" / "ingress" / "ingress.yaml").read_text()
    assert used <= made
