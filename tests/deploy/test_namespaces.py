"""An installation is in the namespace that its outermost kustomization says, and nothing in it knows another."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.kubernetes.objects import named
from support.kubernetes.render import COMBINATIONS, COMPONENTS, OVERLAYS, combination, installation

FOREIGN = ("ml-serving", "team-b")
_OF_A_QUERY = re.compile(r"""\bnamespace\s*=~?\s*["'](?!\$)([^"']*)["']""")
_OF_AN_ADDRESS = re.compile(r"\b[\w-]+\.([\w-]+)\.svc\b")
_OF_AN_ACCOUNT = re.compile(r"system:serviceaccounts?:([\w-]+)")
PROMETHEUS = "monitoring"
"""Where Prometheus is, which the queries are sent to: not a namespace of Marway's."""


def _namespaces(value: object) -> Iterator[str]:
    """Yield every namespace that a document names, in fields and within texts."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "namespace" and isinstance(each, str):
                yield each
            else:
                yield from _namespaces(each)
    elif isinstance(value, list):
        for each in value:
            yield from _namespaces(each)
    elif isinstance(value, str):
        for pattern in (_OF_A_QUERY, _OF_AN_ADDRESS, _OF_AN_ACCOUNT):
            yield from pattern.findall(value)


@pytest.mark.parametrize("namespace", FOREIGN)
@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_knows_only_the_namespace_it_is_put_into(name: str, namespace: str) -> None:
    """Fields, subjects, queries and addresses of an overlay within another name that one's namespace."""
    found = installation(f"overlays/{name}", namespace=namespace)
    assert {each["metadata"]["name"] for each in found if each["kind"] == "Namespace"} <= {namespace}
    assert namespace in set(_namespaces(found)) <= {namespace, PROMETHEUS}


@pytest.mark.parametrize("namespace", FOREIGN)
@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_knows_only_the_namespace_it_is_put_into(name: str, namespace: str) -> None:
    """The same of each component, on an overlay that has a namespace of its own."""
    found = installation("overlays/dev", components=(name,), namespace=namespace)
    assert namespace in set(_namespaces(found)) <= {namespace, PROMETHEUS}


@pytest.mark.parametrize("namespace", FOREIGN)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_combination_knows_only_the_namespace_it_is_put_into(name: str, namespace: str) -> None:
    """The same of components that go together."""
    found = combination(name, namespace=namespace)
    assert namespace in set(_namespaces(found)) <= {namespace, PROMETHEUS}
    assert {each["metadata"].get("namespace", namespace) for each in found} == {namespace}


@pytest.mark.parametrize("namespace", FOREIGN)
def test_a_second_installation_has_rights_queries_and_alerts_of_its_own(namespace: str) -> None:
    """Autoscaling, monitoring and EndpointSlices together, as a second installation of a cluster has them."""
    found = installation(
        "overlays/autoscale", "overlays/monitoring", components=("endpointslices",), namespace=namespace
    )
    (subject,) = named(found, "RoleBinding", "marway-gateway-endpointslices")["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "marway-gateway", "namespace": namespace}
    queries = [each["metadata"]["query"] for each in named(found, "ScaledObject", "marway-pod")["spec"]["triggers"]]
    assert [_OF_A_QUERY.findall(query) for query in queries] == [[namespace], [namespace]]
    groups = named(found, "PrometheusRule", "marway")["spec"]["groups"]
    absent = [rule["expr"] for group in groups for rule in group["rules"] if "absent(" in rule["expr"]]
    assert [_OF_A_QUERY.findall(expression) for expression in absent] == [[namespace], [namespace]]


def test_the_tests_see_each_way_to_name_a_namespace() -> None:
    """A namespace is found in a field, a query, an address and an account's name."""
    texts = ['sum(x{namespace="a"})', "http://p.b.svc:9090", "system:serviceaccount:c:gateway", 'x{namespace=~"$n"}']
    assert set(_namespaces([{"subjects": [{"namespace": "d"}]}, texts])) == {"a", "b", "c", "d"}
