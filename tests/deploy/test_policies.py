"""Every container of every overlay keeps the rules, and each rule notices when one thing is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.kubernetes import components, hardening, network, wiring
from support.kubernetes.faults import COMPONENT_FAULTS, FAULTS, Policy
from support.kubernetes.objects import containers, named_namespace, of_kind, pools, quantity
from support.kubernetes.render import (
    COMBINATIONS,
    COMPONENTS,
    OVERLAYS,
    Document,
    combination,
    installation,
    overlay,
    with_component,
)

EVERYWHERE: tuple[Policy, ...] = (
    components.agrees_on_its_engine,
    components.agrees_with_its_open_inference_server,
    components.agrees_with_its_torchserve,
    components.has_room_for_archives,
    components.has_time_to_drain,
    components.is_understood,
    components.listens_where_it_is_sought,
    components.shares_directories,
    hardening.has_no_token,
    hardening.has_pinned_images,
    hardening.is_apart_from_its_node,
    hardening.is_in_one_namespace,
    hardening.is_limited,
    hardening.is_locked,
    hardening.is_probed,
    hardening.keeps_secrets_from_models,
    hardening.rolls_without_a_gap,
    hardening.runs_as_nobody,
    hardening.survives_nodes,
    network.is_closed_but_for,
    wiring.asks_for_metrics_that_exist,
    wiring.is_encrypted_outside,
    wiring.is_there_while_nothing_is_ready,
    wiring.leads_to_ports,
    wiring.scales_gently,
    wiring.selects_what_it_means,
)
OF_OVERLAYS: tuple[Policy, ...] = (
    components.reaches_its_registry,
    network.opens_the_way_to_the_registry,
    wiring.refers_to_what_is_there,
)
"""What only an overlay can keep: the base and a component alone have no registry."""


OF_PODS = (components, network)
"""Policies that look at one pool of pods and its gateways at a time."""


def complaints(policy: Policy, documents: list[Document]) -> list[str]:
    one_at_a_time = policy.__module__ in {module.__name__ for module in OF_PODS}
    views = pools(documents) if one_at_a_time else [documents]
    return [complaint for view in views for complaint in policy(view)]


def policy_name(value: object) -> str:
    return getattr(value, "__name__", str(value)).strip("_")


@pytest.mark.parametrize("policy", [*EVERYWHERE, *OF_OVERLAYS], ids=policy_name)
@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_keep_the_rules(name: str, policy: Policy) -> None:
    """An overlay gives a policy nothing to complain of."""
    assert complaints(policy, overlay(name)) == []


@pytest.mark.parametrize("policy", EVERYWHERE, ids=policy_name)
@pytest.mark.parametrize("name", COMPONENTS)
def test_components_keep_the_rules(name: str, policy: Policy) -> None:
    """The base with one component gives a policy nothing to complain of."""
    assert complaints(policy, with_component(name)) == []


@pytest.mark.parametrize("policy", [*EVERYWHERE, *OF_OVERLAYS], ids=policy_name)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_combinations_keep_the_rules(name: str, policy: Policy) -> None:
    """An overlay with the components that are meant for it gives a policy nothing to complain of."""
    assert complaints(policy, combination(name)) == []


def test_gc_without_credentials_is_noticed() -> None:
    """On an overlay with keys, gc alone has none: the component of the credentials has to stand behind it."""
    documents = installation("overlays/s3", components=("gc",), namespace="marway")
    assert [each for each in components.reaches_its_registry(documents) if "marway-gc/gc" in each]


@pytest.mark.parametrize("name", OVERLAYS)
def test_policies_see_every_container(name: str) -> None:
    """Main, init and native sidecar containers are all looked at: as many as there are images in the manifests."""
    documents = overlay(name)
    seen = [each.spec["image"] for each in containers(documents)]
    assert sorted(seen) == sorted(_images(documents))
    assert len(seen) >= 3


def _images(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("image"), str):
            yield value["image"]
        for each in value.values():
            yield from _images(each)
    elif isinstance(value, list):
        for each in value:
            yield from _images(each)


def test_quantities_are_read_as_the_api_reads_them() -> None:
    """Suffixes of two, of ten and thousandths; nonsense is refused."""
    assert [quantity(text) for text in ("2", "1500m", "4Gi", "5k", 3)] == [2, quantity("1.5"), 4 * 2**30, 5000, 3]
    for nonsense in ("", "4GB", "much", "1.2.3"):
        with pytest.raises(ValueError, match="no quantity"):
            quantity(nonsense)


@pytest.mark.parametrize("index", range(len(FAULTS)), ids=lambda index: f"{index}-{policy_name(FAULTS[index][0])}")
def test_one_fault_is_noticed(index: int) -> None:
    """A policy that has nothing to complain of complains of a copy with one fault."""
    policy, name, breaks = FAULTS[index]
    documents = overlay(name)
    assert complaints(policy, documents) == []
    breaks(documents)
    assert complaints(policy, documents) != []


@pytest.mark.parametrize(
    "index", range(len(COMPONENT_FAULTS)), ids=lambda index: f"{index}-{COMPONENT_FAULTS[index][1]}"
)
def test_one_fault_in_a_component_is_noticed(index: int) -> None:
    """The same for what only components have."""
    policy, name, breaks = COMPONENT_FAULTS[index]
    documents = with_component(name)
    assert complaints(policy, documents) == []
    breaks(documents)
    assert complaints(policy, documents) != []


def test_every_policy_has_a_fault_that_it_notices() -> None:
    """A policy that no test has seen complain is none."""
    proved = {policy for policy, _, _ in (*FAULTS, *COMPONENT_FAULTS)}
    assert proved == {*EVERYWHERE, *OF_OVERLAYS}


def test_gateways_that_watch_may_do_nothing_else() -> None:
    """The role of the component is to read EndpointSlices of its own namespace; only the gateway is given it."""
    documents = with_component("endpointslices")
    (role,) = of_kind(documents, "Role")
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    ]
    (binding,) = of_kind(documents, "RoleBinding")
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "marway-gateway", "namespace": named_namespace(documents)}
    ]
    assert of_kind(documents, "ClusterRole", "ClusterRoleBinding") == []
    with_tokens = [
        each.name
        for each in containers(documents)
        for volume in each.volumes.values()
        if any("serviceAccountToken" in source for source in volume.get("projected", {}).get("sources", []))
    ]
    assert with_tokens == ["gateway"]
