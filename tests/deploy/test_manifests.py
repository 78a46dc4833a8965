"""Every manifest is what the API servers of all supported versions, and the custom resources' own schemas, allow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support.kubernetes.objects import container, environment, named, pod_labels, pools, selects
from support.kubernetes.render import (
    COMBINATIONS,
    COMPONENTS,
    KUBERNETES,
    OVERLAYS,
    Document,
    combination,
    overlay,
    with_component,
)
from support.kubernetes.schemas import VERSIONS, fault


def test_overlays_that_people_are_told_of_are_there() -> None:
    """The issue's overlays exist, and the tests here find every directory that is one."""
    told_of = {
        "dev",
        "s3",
        "s3-workload-identity",
        "autoscale",
        "autoscale-hpa",
        "gpu-pool",
        "stock-torchserve",
        "native",
        "triton",
        "mlserver",
    }
    assert told_of <= set(OVERLAYS)
    directories = {path.name for path in (KUBERNETES / "overlays").iterdir() if path.is_dir()}
    assert directories == set(OVERLAYS)
    assert {path.name for path in (KUBERNETES / "components").iterdir()} == set(COMPONENTS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_are_valid(name: str, version: str) -> None:
    """Each object of an overlay has only fields that its kind has, of their types."""
    found = overlay(name)
    assert {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= {each["kind"] for each in found}
    assert [wrong for each in found if (wrong := fault(each, version))] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_components_are_valid(name: str, version: str) -> None:
    """The base with any one component is valid, and the component changes it."""
    found = with_component(name)
    assert [wrong for each in found if (wrong := fault(each, version))] == []
    assert found != with_component(next(other for other in COMPONENTS if other != name))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_combinations_are_valid(name: str, version: str) -> None:
    """The same of what goes together."""
    assert [wrong for each in combination(name) if (wrong := fault(each, version))] == []


def test_engines_and_gpus_go_together() -> None:
    """Pods with a GPU and the native engine run the image for both, whichever of the two components comes first."""
    for name in ("native, GPU", "GPU, native"):
        assert container(combination(name), "runtime").spec["image"] == "marway-runtime-native:0.1.0-gpu"


def test_a_mixed_cluster_has_pods_of_each_engine() -> None:
    """One pool starts each engine; both are for versions that ask for no pool, and the gateway finds all of them."""
    found = overlay("mixed-engines")
    kinds = {}
    for view in pools(found):
        sidecar, runtime = (environment(view, container(view, name)) for name in ("sidecar", "runtime"))
        kinds[runtime.get("MARWAY_RUNTIME_ENGINE", "torchserve")] = sidecar
        labels = pod_labels(named(view, "Deployment", container(view, "sidecar").deployment))
        assert selects({"matchLabels": named(view, "Service", "marway-pods")["spec"]["selector"]}, labels)
    assert set(kinds) == {"torchserve", "native"}
    assert all("MARWAY_SIDECAR_POOL" not in sidecar for sidecar in kinds.values())


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_object_is_there_twice(name: str) -> None:
    """Kind and name say which object is meant, and all are in the one namespace that the overlay makes."""
    found = overlay(name)
    names = [(each["apiVersion"], each["kind"], each["metadata"]["name"]) for each in found]
    assert len(names) == len(set(names))
    (namespace,) = (each for each in found if each["kind"] == "Namespace")
    inside = {each["metadata"].get("namespace") for each in found if each["kind"] != "Namespace"}
    assert inside == {namespace["metadata"]["name"]}


def _unknown_field(document: Document) -> None:
    document["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}


def _wrong_type(document: Document) -> None:
    document["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = 5


def _missing_field(document: Document) -> None:
    del document["spec"]["selector"]


def _unknown_kind(document: Document) -> None:
    document["kind"] = "Deploymint"


def _unknown_group(document: Document) -> None:
    document["apiVersion"] = "apps.example.com/v1"


def _retired_version(document: Document) -> None:
    document["apiVersion"] = "apps/v1beta1"


FAULTS = [_unknown_field, _wrong_type, _missing_field, _unknown_kind, _unknown_group, _retired_version]


@pytest.mark.parametrize("broken", FAULTS, ids=lambda each: each.__name__.strip("_"))
@pytest.mark.parametrize("version", VERSIONS)
def test_a_fault_in_a_deployment_is_found(broken: Callable[[Document], None], version: str) -> None:
    """One fault in one object is enough to be refused."""
    deployment = named(overlay("s3"), "Deployment", "marway-gateway")
    assert fault(deployment, version) is None
    broken(deployment)
    assert fault(deployment, version) is not None


def test_a_fault_in_a_custom_resource_is_found() -> None:
    """An unknown field deep within a custom resource, which an API server would drop without a word, is refused."""
    (scaled,) = (each for each in overlay("autoscale") if each["kind"] == "ScaledObject")
    assert fault(scaled, VERSIONS[0]) is None
    scaled["spec"]["triggers"][0]["metricsType"] = "AverageValue"
    assert "metricsType" in str(fault(scaled, VERSIONS[0]))
    (route, *_) = (each for each in with_component("httproute") if each["kind"] == "HTTPRoute")
    route["spec"]["rules"][0]["backendRefs"][0]["port"] = "8000"
    assert "8000" in str(fault(route, VERSIONS[0]))
    grpc = named(with_component("httproute"), "GRPCRoute", "marway-grpc")
    assert fault(grpc, VERSIONS[0]) is None
    grpc["spec"]["rules"][0]["timeouts"] = {"request": "70s"}  # which only an HTTPRoute has
    assert "timeouts" in str(fault(grpc, VERSIONS[0]))


def test_schemas_of_custom_resources_know_every_field() -> None:
    """No schema in the tree lets an unknown field pass, and the README says where each is from."""
    origins = (KUBERNETES / "schemas" / "README.md").read_text()
    schemas = sorted((KUBERNETES / "schemas").glob("*.json"))
    assert schemas
    for path in schemas:
        schema = json.loads(path.read_text())
        assert path.name.rpartition("_")[2] in origins, f"{path.name}: say in schemas/README.md where it is from"
        assert list(_open_objects(schema, "$")) in ([], ["$.properties.metadata"]), path.name


def _open_objects(schema: object, where: str) -> list[str]:
    if isinstance(schema, list):
        return [found for index, each in enumerate(schema) for found in _open_objects(each, f"{where}[{index}]")]
    if not isinstance(schema, dict):
        return []
    is_object = schema.get("type") == "object" and "const" not in schema
    found = [where] if is_object and "additionalProperties" not in schema else []
    return found + [deep for key, each in schema.items() for deep in _open_objects(each, f"{where}.{key}")]


FILES = sorted(KUBERNETES.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_files_are_used_and_hold_no_credentials(path: Path) -> None:
    """Each file is named by its kustomization, and none holds or makes a Secret."""
    loaded = [each for each in yaml.safe_load_all(path.read_text()) if isinstance(each, dict)]
    assert not [each for each in loaded if each.get("kind") == "Secret" or "secretGenerator" in each]
    kustomization = path.parent / "kustomization.yaml"
    if path != kustomization and kustomization.exists():
        assert path.name in kustomization.read_text()
