"""One fault for each thing that a policy looks at. A policy that cannot fail is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from support.kubernetes import components, hardening, network, wiring
from support.kubernetes.objects import container, named, of_kind, pod_of
from support.kubernetes.render import Document, overlay

Policy = Callable[[list[Document]], Iterator[str]]
Fault = tuple[Policy, str, Callable[[list[Document]], object]]
"""The policy, the overlay or component that keeps it, and what breaks a copy of that."""


def _env(spec: dict[str, Any], name: str, value: str) -> None:
    kept = [variable for variable in spec.get("env", []) if variable["name"] != name]
    spec["env"] = [*kept, {"name": name, "value": value}]


def _volume(documents: list[Document], of: str, name: str) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = container(documents, of).pod["volumes"]
    return next(volume for volume in volumes if volume["name"] == name)


def _mount(documents: list[Document], of: str, name: str) -> dict[str, Any]:
    return container(documents, of).mounts[name]


def _spec(documents: list[Document], name: str) -> dict[str, Any]:
    return container(documents, name).spec


def _deployment(documents: list[Document], name: str = "marway-pod") -> dict[str, Any]:
    return named(documents, "Deployment", name)


def _drop(documents: list[Document], kind: str, name: str) -> None:
    documents.remove(named(documents, kind, name))


def _port(documents: list[Document]) -> None:
    named(documents, "Service", "marway-pods")["spec"]["ports"][0]["targetPort"] = "grpc"


def _monitor(labels: dict[str, str], port: str) -> Document:
    spec = {"selector": {"matchLabels": labels}, "podMetricsEndpoints": [{"port": port}]}
    return {"kind": "PodMonitor", "metadata": {"name": "marway"}, "spec": spec}


FAULTS: list[Fault] = [
    # Who containers run as, and what they may.
    (hardening.runs_as_nobody, "s3", lambda d: pod_of(_deployment(d))["securityContext"].pop("runAsNonRoot")),
    (hardening.runs_as_nobody, "s3", lambda d: _spec(d, "runtime")["securityContext"].update(runAsUser=0)),
    (hardening.runs_as_nobody, "s3", lambda d: _spec(d, "runtime")["securityContext"].update(runAsNonRoot=False)),
    (hardening.runs_as_nobody, "s3", lambda d: pod_of(_deployment(d))["securityContext"].pop("runAsGroup")),
    (hardening.is_locked, "s3", lambda d: _spec(d, "runtime")["securityContext"].pop("readOnlyRootFilesystem")),
    (hardening.is_locked, "s3", lambda d: _spec(d, "gateway")["securityContext"].pop("allowPrivilegeEscalation")),
    (
        hardening.is_locked,
        "s3",
        lambda d: _spec(d, "sidecar")["securityContext"]["capabilities"].update(add=["NET_RAW"]),
    ),
    (hardening.is_locked, "s3", lambda d: _spec(d, "sidecar")["securityContext"].update(privileged=True)),
    (hardening.is_locked, "s3", lambda d: pod_of(_deployment(d))["securityContext"].pop("seccompProfile")),
    (hardening.is_locked, "stock-torchserve", lambda d: _spec(d, "torchserve").pop("securityContext")),
    (hardening.is_apart_from_its_node, "s3", lambda d: pod_of(_deployment(d)).update(hostNetwork=True)),
    (
        hardening.is_apart_from_its_node,
        "s3",
        lambda d: _volume(d, "sidecar", "store").update(hostPath={"path": "/var"}),
    ),
    (hardening.is_apart_from_its_node, "s3", lambda d: _spec(d, "sidecar")["ports"][0].update(hostPort=9000)),
    (
        hardening.is_apart_from_its_node,
        "s3",
        lambda d: of_kind(d, "Namespace")[0]["metadata"]["labels"].update(
            {"pod-security.kubernetes.io/enforce": "baseline"}
        ),
    ),
    # What they may use, and how they are watched.
    (hardening.is_limited, "s3", lambda d: _spec(d, "runtime")["resources"]["limits"].pop("memory")),
    (hardening.is_limited, "s3", lambda d: _spec(d, "runtime")["resources"]["requests"].update(memory="1Gi")),
    (hardening.is_limited, "s3", lambda d: _spec(d, "gateway")["resources"]["requests"].update(cpu="2500m")),
    (hardening.is_limited, "s3", lambda d: _volume(d, "sidecar", "store").update(emptyDir={})),
    (hardening.is_limited, "s3", lambda d: _volume(d, "sidecar", "store").update(emptyDir={"sizeLimit": "80Gi"})),
    (hardening.is_probed, "s3", lambda d: _spec(d, "runtime").pop("livenessProbe")),
    (hardening.is_probed, "s3", lambda d: _spec(d, "sidecar").pop("readinessProbe")),
    (hardening.is_probed, "s3", lambda d: _spec(d, "sidecar")["readinessProbe"]["httpGet"].update(path="/healthz")),
    (hardening.is_probed, "s3", lambda d: _spec(d, "gateway")["livenessProbe"]["httpGet"].update(path="/readyz")),
    (hardening.is_probed, "s3", lambda d: _spec(d, "gateway")["readinessProbe"]["httpGet"].update(path="/readyz")),
    (hardening.is_probed, "s3", lambda d: _spec(d, "gateway")["startupProbe"]["httpGet"].update(path="/healthz")),
    (hardening.is_probed, "s3", lambda d: _spec(d, "gateway")["livenessProbe"]["httpGet"].update(port="metrics")),
    (
        hardening.is_probed,
        "stock-torchserve",
        lambda d: _spec(d, "torchserve").update(livenessProbe={"httpGet": {"port": 8081, "path": "/healthz"}}),
    ),
    # Tokens and credentials.
    (hardening.has_no_token, "s3", lambda d: pod_of(_deployment(d)).pop("automountServiceAccountToken")),
    (
        hardening.has_no_token,
        "s3",
        lambda d: named(d, "ServiceAccount", "marway-pod").pop("automountServiceAccountToken"),
    ),
    (hardening.has_no_token, "s3", lambda d: pod_of(_deployment(d)).pop("serviceAccountName")),
    (hardening.has_no_token, "s3", lambda d: pod_of(_deployment(d)).pop("enableServiceLinks")),
    (
        hardening.has_no_token,
        "s3-workload-identity",
        lambda d: _volume(d, "sidecar", "sts-token")["projected"]["sources"][0]["serviceAccountToken"].pop("audience"),
    ),
    (
        hardening.keeps_secrets_from_models,
        "s3",
        lambda d: _spec(d, "runtime")["volumeMounts"].append({"name": "s3-credentials", "mountPath": "/etc/marway/s3"}),
    ),
    (
        hardening.keeps_secrets_from_models,
        "s3-workload-identity",
        lambda d: _spec(d, "runtime")["volumeMounts"].append({"name": "sts-token", "mountPath": "/etc/sts"}),
    ),
    (hardening.keeps_secrets_from_models, "s3", lambda d: _env(_spec(d, "runtime"), "AWS_ACCESS_KEY_ID", "AKIA")),
    (
        hardening.keeps_secrets_from_models,
        "s3",
        lambda d: _spec(d, "runtime").update(envFrom=[{"secretRef": {"name": "marway-sidecar-s3"}}]),
    ),
    (hardening.keeps_secrets_from_models, "s3", lambda d: pod_of(_deployment(d))["initContainers"].clear()),
    # Images, nodes, rollouts.
    (hardening.has_pinned_images, "s3", lambda d: _spec(d, "runtime").update(image="marway-runtime:latest")),
    (
        hardening.has_pinned_images,
        "s3",
        lambda d: _spec(d, "runtime").update(image="registry.example.com:5000/marway-runtime"),
    ),
    (hardening.has_pinned_images, "s3", lambda d: _spec(d, "gateway").update(image="marway-gateway:0.0.1")),
    (hardening.survives_nodes, "s3", lambda d: _drop(d, "PodDisruptionBudget", "marway-pod")),
    (
        hardening.survives_nodes,
        "s3",
        lambda d: named(d, "PodDisruptionBudget", "marway-pod")["spec"].update(maxUnavailable=0),
    ),
    (hardening.survives_nodes, "s3", lambda d: pod_of(_deployment(d))["topologySpreadConstraints"].pop()),
    (
        hardening.survives_nodes,
        "s3",
        lambda d: pod_of(_deployment(d))["topologySpreadConstraints"][0].update(
            labelSelector={"matchLabels": {"app": "x"}}
        ),
    ),
    (
        hardening.rolls_without_a_gap,
        "s3",
        lambda d: _deployment(d)["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1),
    ),
    (hardening.rolls_without_a_gap, "s3", lambda d: _deployment(d)["spec"].pop("minReadySeconds")),
    (hardening.is_in_one_namespace, "s3", lambda d: _deployment(d)["metadata"].pop("namespace")),
    # What the programs make of it.
    (components.is_understood, "s3", lambda d: _env(_spec(d, "sidecar"), "MARWAY_SIDECAR_DRAIN_TIMEOUT", "60")),
    (components.is_understood, "s3", lambda d: _env(_spec(d, "sidecar"), "MARWAY_GATEWAY_LAME_DUCK_S", "5")),
    (components.is_understood, "s3", lambda d: _env(_spec(d, "gateway"), "MARWAY_GATEWAY_LAME_DUCK_S", "soon")),
    (components.is_understood, "s3", lambda d: _spec(d, "sidecar")["args"].append("--archive-directory")),
    (components.is_understood, "s3", lambda d: _spec(d, "runtime").update(args=["sidecar"])),
    (components.is_understood, "s3", lambda d: _spec(d, "gateway")["env"].append(_spec(d, "gateway")["env"][-1])),
    (components.listens_where_it_is_sought, "s3", lambda d: _spec(d, "sidecar")["ports"][0].update(containerPort=9001)),
    (components.listens_where_it_is_sought, "s3", lambda d: _spec(d, "sidecar")["args"].extend(["--port", "9001"])),
    (
        components.listens_where_it_is_sought,
        "s3",
        lambda d: _env(_spec(d, "gateway"), "MARWAY_GATEWAY_HOST", "127.0.0.1"),
    ),
    (
        components.listens_where_it_is_sought,
        "s3",
        lambda d: _env(_spec(d, "gateway"), "MARWAY_GATEWAY_ADMIN_TOKENS_FILE", ""),
    ),
    (
        components.listens_where_it_is_sought,
        "s3",
        lambda d: _env(_spec(d, "runtime"), "MARWAY_RUNTIME_HOST", "0.0.0.0"),
    ),
    (
        components.listens_where_it_is_sought,
        "s3",
        lambda d: _env(_spec(d, "gateway"), "MARWAY_GATEWAY_PODS", "dns://marway-pods.elsewhere.svc:9000"),
    ),
    (
        components.listens_where_it_is_sought,
        "s3",
        lambda d: named(d, "Service", "marway-pods")["spec"].pop("clusterIP"),
    ),
    (components.has_time_to_drain, "s3", lambda d: pod_of(_deployment(d)).update(terminationGracePeriodSeconds=30)),
    (components.has_time_to_drain, "s3", lambda d: _env(_spec(d, "gateway"), "MARWAY_GATEWAY_LAME_DUCK_S", "30")),
    (components.has_time_to_drain, "s3", lambda d: _env(_spec(d, "gateway"), "MARWAY_GATEWAY_LAME_DUCK_S", "1")),
    (components.has_time_to_drain, "s3", lambda d: _env(_spec(d, "sidecar"), "MARWAY_SIDECAR_DRAIN_TIMEOUT_S", "10")),
    (
        components.has_time_to_drain,
        "s3",
        lambda d: _spec(d, "sidecar")["livenessProbe"].pop("terminationGracePeriodSeconds"),
    ),
    (
        components.has_time_to_drain,
        "s3",
        lambda d: _spec(d, "sidecar").update(lifecycle={"preStop": {"sleep": {"seconds": 5}}}),
    ),
    (components.agrees_on_its_engine, "s3", lambda d: _env(_spec(d, "sidecar"), "MARWAY_SIDECAR_BACKEND", "native")),
    (components.agrees_on_its_engine, "native", lambda d: _env(_spec(d, "runtime"), "MARWAY_RUNTIME_ENGINE", "")),
    (
        components.agrees_on_its_engine,
        "native",
        lambda d: _spec(d, "runtime").update(image="registry.example.com:5000/marway-runtime:0.1.0"),
    ),
    (components.shares_directories, "s3", lambda d: _mount(d, "runtime", "store").pop("readOnly")),
    (components.shares_directories, "s3", lambda d: _mount(d, "sidecar", "store").update(readOnly=True)),
    (components.shares_directories, "s3", lambda d: _mount(d, "runtime", "store").update(mountPath="/models")),
    (components.shares_directories, "s3", lambda d: _mount(d, "runtime", "runtime").update(mountPath="/run/other")),
    (components.shares_directories, "s3", lambda d: _mount(d, "sidecar", "sidecar-tmp").update(name="runtime-tmp")),
    (components.shares_directories, "s3", lambda d: _env(_spec(d, "runtime"), "TMPDIR", "/tmp/" + 80 * "x")),
    (components.shares_directories, "s3", lambda d: _mount(d, "sidecar", "s3-credentials").pop("readOnly")),
    (
        components.has_room_for_archives,
        "s3",
        lambda d: _env(_spec(d, "sidecar"), "MARWAY_SIDECAR_ARCHIVE_STORE_BYTES", ""),
    ),
    (
        components.has_room_for_archives,
        "s3",
        lambda d: _volume(d, "sidecar", "store")["emptyDir"].update(sizeLimit="16Gi"),
    ),
    (
        components.reaches_its_registry,
        "s3",
        lambda d: _env(_spec(d, "sidecar"), "MARWAY_SIDECAR_REGISTRY", "s3://other/registry"),
    ),
    (
        components.reaches_its_registry,
        "s3",
        lambda d: _mount(d, "gateway", "s3-credentials").update(mountPath="/etc/s3"),
    ),
    (components.reaches_its_registry, "s3-workload-identity", lambda d: _spec(d, "sidecar")["env"].clear()),
    (components.reaches_its_registry, "dev", lambda d: _mount(d, "sidecar", "registry").pop("readOnly")),
    (
        components.reaches_its_registry,
        "dev",
        lambda d: _spec(d, "gateway")["volumeMounts"].remove(_mount(d, "gateway", "registry")),
    ),
    (
        components.agrees_with_its_torchserve,
        "stock-torchserve",
        lambda d: _spec(d, "torchserve")["args"].append("--quiet"),
    ),
    (components.agrees_with_its_torchserve, "stock-torchserve", lambda d: _spec(d, "torchserve").pop("command")),
    (
        components.agrees_with_its_torchserve,
        "stock-torchserve",
        lambda d: _env(_spec(d, "sidecar"), "MARWAY_SIDECAR_TORCHSERVE_INFERENCE", "http://127.0.0.1:8090"),
    ),
    (
        components.agrees_with_its_torchserve,
        "stock-torchserve",
        lambda d: _env(_spec(d, "sidecar"), "MARWAY_SIDECAR_MEMORY_BUDGET_BYTES", "4294967296"),
    ),
    (components.agrees_with_its_torchserve, "stock-torchserve", lambda d: _config(d, "127.0.0.1:8081", "0.0.0.0:8081")),
    (
        components.agrees_with_its_torchserve,
        "stock-torchserve",
        lambda d: _config(d, "max_request_size=1", "max_request_size=2"),
    ),
    *(
        (components.agrees_with_its_open_inference_server, overlay_name, breaks)
        for overlay_name, breaks in (
            ("triton", lambda d: _spec(d, "triton")["args"].remove("--http-address=127.0.0.1")),
            ("triton", lambda d: _spec(d, "triton")["args"].remove("--metrics-address=127.0.0.1")),
            ("triton", lambda d: _spec(d, "triton")["args"].remove("--model-control-mode=explicit")),
            ("triton", lambda d: _env(_spec(d, "sidecar"), "MARWAY_SIDECAR_OPEN_INFERENCE_GRPC", "127.0.0.1:9001")),
            ("triton", lambda d: _env(_spec(d, "sidecar"), "MARWAY_SIDECAR_MEMORY_BUDGET_BYTES", "4294967296")),
            ("mlserver", lambda d: _env(_spec(d, "mlserver"), "MLSERVER_HOST", "0.0.0.0")),
            ("mlserver", lambda d: _env(_spec(d, "mlserver"), "MLSERVER_HTTP_PORT", "8090")),
            ("mlserver", lambda d: _env(_spec(d, "mlserver"), "MLSERVER_LOAD_MODELS_AT_STARTUP", "true")),
            ("mlserver", lambda d: _spec(d, "mlserver").update(args=["start", "/models"])),
            ("mlserver", lambda d: _env(_spec(d, "sidecar"), "MARWAY_SIDECAR_CPUS", "8")),
        )
    ),
    (components.shares_directories, "triton", lambda d: _mount(d, "triton", "models").pop("readOnly")),
    (components.shares_directories, "mlserver", lambda d: _mount(d, "mlserver", "models").update(mountPath="/models")),
    # What objects say of one another.
    (wiring.refers_to_what_is_there, "s3", lambda d: d.remove(of_kind(d, "ConfigMap")[0])),
    (wiring.refers_to_what_is_there, "s3", lambda d: _drop(d, "ServiceAccount", "marway-pod")),
    (wiring.refers_to_what_is_there, "dev", lambda d: _drop(d, "PersistentVolumeClaim", "marway-registry")),
    (
        wiring.refers_to_what_is_there,
        "s3",
        lambda d: _volume(d, "gateway", "admin-tokens")["secret"].update(secretName="nowhere-told-of"),
    ),
    (
        wiring.refers_to_what_is_there,
        "s3-workload-identity",
        lambda d: next(each for each in of_kind(d, "ConfigMap") if "sidecar" in each["data"])["data"].pop("sidecar"),
    ),
    (
        wiring.selects_what_it_means,
        "s3",
        lambda d: _deployment(d, "marway-gateway")["spec"]["selector"]["matchLabels"].pop(
            "app.kubernetes.io/component"
        ),
    ),
    (
        wiring.selects_what_it_means,
        "s3",
        lambda d: named(d, "Service", "marway-pods")["spec"].update(selector={"app": "pods"}),
    ),
    (
        wiring.selects_what_it_means,
        "s3",
        lambda d: named(d, "PodDisruptionBudget", "marway-pod")["spec"].update(selector={}),
    ),
    (
        wiring.selects_what_it_means,
        "s3",
        lambda d: named(d, "NetworkPolicy", "dns")["spec"].update(podSelector={"matchLabels": {"a": "b"}}),
    ),
    (wiring.leads_to_ports, "s3", _port),
    (
        wiring.is_there_while_nothing_is_ready,
        "s3",
        lambda d: named(d, "Service", "marway-gateway")["spec"].update(publishNotReadyAddresses=True),
    ),
    *(
        (
            wiring.is_there_while_nothing_is_ready,
            "s3",
            lambda d, name=name: named(d, "Service", name)["spec"].pop("publishNotReadyAddresses"),
        )
        for name in ("marway-gateway-admin", "marway-pods")
    ),
    (wiring.leads_to_ports, "s3", lambda d: d.append(_monitor({"app.kubernetes.io/name": "marway"}, "metrics"))),
    (wiring.leads_to_ports, "s3", lambda d: d.append(_monitor({"app": "marway"}, "http"))),
    (wiring.leads_to_ports, "s3", lambda d: _spec(d, "sidecar")["ports"][0].update(name="web")),
    (wiring.scales_gently, "autoscale", lambda d: _deployment(d)["spec"].update(replicas=2)),
    (wiring.scales_gently, "s3", lambda d: _deployment(d)["spec"].pop("replicas")),
    (
        wiring.scales_gently,
        "autoscale",
        lambda d: named(d, "ScaledObject", "marway-pod")["spec"]["scaleTargetRef"].update(name="pods"),
    ),
    (
        wiring.scales_gently,
        "autoscale-hpa",
        lambda d: named(d, "HorizontalPodAutoscaler", "marway-pod")["spec"]["behavior"]["scaleDown"]["policies"][
            0
        ].update(periodSeconds=15),
    ),
    (
        wiring.scales_gently,
        "autoscale-hpa",
        lambda d: d.append({**named(d, "HorizontalPodAutoscaler", "marway-pod"), "metadata": {"name": "again"}}),
    ),
    (wiring.asks_for_metrics_that_exist, "autoscale", lambda d: _query(d, "requests_in_flight", "requests_active")),
    (wiring.asks_for_metrics_that_exist, "autoscale", lambda d: _query(d, 'namespace="marway"', 'namespace="other"')),
    # Who speaks with whom.
    (network.is_closed_but_for, "s3", lambda d: _drop(d, "NetworkPolicy", "default-deny")),
    (network.is_closed_but_for, "s3", lambda d: _drop(d, "NetworkPolicy", "dns")),
    (network.is_closed_but_for, "s3", lambda d: _drop(d, "NetworkPolicy", "marway-pod")),
    (network.is_closed_but_for, "s3", lambda d: named(d, "NetworkPolicy", "marway-gateway")["spec"].pop("egress")),
    (
        network.is_closed_but_for,
        "s3",
        lambda d: named(d, "NetworkPolicy", "marway-gateway")["spec"]["ingress"][0].pop("ports"),
    ),
    (
        network.is_closed_but_for,
        "s3",
        lambda d: named(d, "NetworkPolicy", "marway-pod")["spec"]["ingress"][0].pop("from"),
    ),
    (
        network.is_closed_but_for,
        "s3",
        lambda d: named(d, "NetworkPolicy", "marway-pod")["spec"]["ingress"][0].pop("ports"),
    ),
    (
        network.is_closed_but_for,
        "s3",
        lambda d: named(d, "NetworkPolicy", "marway-pod")["spec"]["ingress"][0]["from"][0].update(
            namespaceSelector={}, podSelector={}
        ),
    ),
    (
        network.is_closed_but_for,
        "s3",
        lambda d: named(d, "NetworkPolicy", "registry-s3")["spec"]["egress"][0]["to"][0]["ipBlock"].pop("except"),
    ),
    (
        network.is_closed_but_for,
        "s3",
        lambda d: named(d, "NetworkPolicy", "registry-s3")["spec"]["egress"][0].pop("ports"),
    ),
    (network.opens_the_way_to_the_registry, "s3", lambda d: _drop(d, "NetworkPolicy", "registry-s3")),
    (
        network.opens_the_way_to_the_registry,
        "dev",
        lambda d: d.append({**named(overlay("s3"), "NetworkPolicy", "registry-s3")}),
    ),
]


def _config(documents: list[Document], old: str, new: str) -> None:
    (config,) = (each for each in of_kind(documents, "ConfigMap") if "config.properties" in each["data"])
    assert old in config["data"]["config.properties"]
    config["data"]["config.properties"] = config["data"]["config.properties"].replace(old, new)


def _query(documents: list[Document], old: str, new: str) -> None:
    metadata = named(documents, "ScaledObject", "marway-pod")["spec"]["triggers"][0]["metadata"]
    assert old in metadata["query"]
    metadata["query"] = metadata["query"].replace(old, new)


COMPONENT_FAULTS: list[Fault] = [
    (wiring.is_encrypted_outside, "ingress", lambda d: named(d, "Ingress", "marway")["spec"]["tls"].clear()),
    (
        wiring.is_encrypted_outside,
        "httproute",
        lambda d: named(d, "Gateway", "marway")["spec"]["listeners"][0].update(protocol="HTTP"),
    ),
    (
        wiring.leads_to_ports,
        "ingress",
        lambda d: named(d, "Ingress", "marway")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"].update(
            name="marway-gateway-admin", port={"name": "admin"}
        ),
    ),
    (
        wiring.leads_to_ports,
        "httproute",
        lambda d: named(d, "HTTPRoute", "marway")["spec"]["rules"][0]["backendRefs"][0].update(port=9000),
    ),
    (
        wiring.leads_to_ports,
        "httproute",
        lambda d: named(d, "HTTPRoute", "marway")["spec"]["parentRefs"][0].update(sectionName="http"),
    ),
    (
        wiring.leads_to_ports,
        "httproute",
        lambda d: named(d, "GRPCRoute", "marway-grpc")["spec"]["rules"][0]["backendRefs"][0].update(port=8001),
    ),
    (
        wiring.leads_to_ports,
        "httproute",
        lambda d: named(d, "GRPCRoute", "marway-grpc")["spec"].update(hostnames=["predict.marway.example.com"]),
    ),
    (
        wiring.leads_to_ports,
        "openshift",
        lambda d: named(d, "Route", "marway")["spec"]["to"].update(name="marway-gateway-admin"),
    ),
    (
        wiring.is_encrypted_outside,
        "openshift",
        lambda d: named(d, "Route", "marway")["spec"]["tls"].update(insecureEdgeTerminationPolicy="Allow"),
    ),
    (hardening.runs_as_nobody, "openshift", lambda d: pod_of(_deployment(d))["securityContext"].pop("runAsNonRoot")),
    (hardening.runs_as_nobody, "openshift", lambda d: pod_of(_deployment(d))["securityContext"].update(fsGroup=65532)),
    (hardening.runs_as_nobody, "gc", lambda d: _spec(d, "gc")["securityContext"].update(runAsUser=0)),
    (hardening.is_locked, "gc", lambda d: _spec(d, "gc").pop("securityContext")),
    (hardening.is_limited, "gc", lambda d: _spec(d, "gc")["resources"].pop("limits")),
    (hardening.has_no_token, "gc", lambda d: container(d, "gc").pod.pop("automountServiceAccountToken")),
    (components.is_understood, "gc", lambda d: _spec(d, "gc")["args"].append("--force")),
    (components.is_understood, "gc", lambda d: _env(_spec(d, "gc"), "MARWAY_GATEWAY_LAME_DUCK_S", "5")),
    (hardening.has_no_token, "endpointslices", lambda d: _drop(d, "RoleBinding", "marway-gateway-endpointslices")),
    (
        components.has_room_for_archives,
        "shared-store",
        lambda d: named(d, "PersistentVolumeClaim", "marway-store")["spec"].update(accessModes=["ReadWriteOnce"]),
    ),
]
