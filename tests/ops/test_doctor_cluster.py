"""`marway doctor --cluster` names what is wrong in a cluster and what to do, and is silent about what is well.

No cluster is at hand: kubectl is a stand-in that prints documents in the API's shape, made from the shipped base.
"""

from __future__ import annotations

import copy
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from marway_ops.cluster import NAMESPACE, Kubectl, examine_cluster
from support.cli import marway, refused
from support.kubectl import StandInKubectl

Documents = dict[str, Any]
Change = Callable[[Documents], None]
Examine = Callable[[Change], list[dict[str, str]]]

WELL = json.loads((Path(__file__).parent / "api_documents" / "cluster.json").read_text())
SECRETS = ("marway-admin-tokens", "s3-credentials")
TOKEN_MOUNT = {"name": "kube-api-access-x2x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
TOKEN_VOLUME = {
    "name": "kube-api-access-x2x",
    "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]},
}


def items(documents: Documents, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = next(each["items"] for name, each in documents.items() if name.startswith(kind))
    return found


def component(documents: Documents, kind: str, name: str) -> list[dict[str, Any]]:
    return [
        each for each in items(documents, kind) if each["metadata"]["labels"]["app.kubernetes.io/component"] == name
    ]


def pod(documents: Documents, number: int = 0) -> dict[str, Any]:
    return component(documents, "pods", "pod")[number]


def gateway(documents: Documents) -> dict[str, Any]:
    return component(documents, "pods", "gateway")[0]


def container(found: dict[str, Any], name: str) -> dict[str, Any]:
    every = [*found["spec"].get("initContainers", ()), *found["spec"]["containers"]]
    return next(each for each in every if each["name"] == name)


def status(found: dict[str, Any], name: str) -> dict[str, Any]:
    every = [*found["status"].get("initContainerStatuses", ()), *found["status"]["containerStatuses"]]
    return next(each for each in every if each["name"] == name)


def condition(found: dict[str, Any], kind: str, value: str, **said: str) -> None:
    next(each for each in found["status"]["conditions"] if each["type"] == kind).update(status=value, **said)


def unready(found: dict[str, Any], name: str, **state: object) -> None:
    status(found, name).update(ready=False, started=False, **state)
    condition(found, "Ready", "False", reason="ContainersNotReady")


def waiting(reason: str, message: str = "") -> dict[str, object]:
    return {"waiting": {"reason": reason, "message": message}}


def event(documents: Documents, about: dict[str, Any], reason: str, message: str) -> None:
    made = copy.deepcopy(items(documents, "events")[-1])
    made["involvedObject"]["name"] = about["metadata"]["name"]
    made.update(type="Warning", reason=reason, message=message)
    items(documents, "events").append(made)


# -- what may be wrong -----------------------------------------------------------------------------------------


def unschedulable(message: str) -> Change:
    def change(documents: Documents) -> None:
        found = pod(documents)
        found["status"] = {
            "phase": "Pending",
            "qosClass": "Burstable",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}],
        }

    return change


def crash_loop(documents: Documents) -> None:
    terminated = {"exitCode": 1, "reason": "Error"}
    unready(
        pod(documents),
        "sidecar",
        state=waiting("CrashLoopBackOff", "back-off 5m0s restarting failed container=sidecar"),
        lastState={"terminated": terminated},
        restartCount=9,
    )


def runtime_out_of_memory(documents: Documents) -> None:
    status(pod(documents), "runtime").update(
        restartCount=1, lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    )


def gateway_out_of_memory(documents: Documents) -> None:
    status(gateway(documents), "gateway").update(
        restartCount=1, lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    )


def image(reason: str) -> Change:
    def change(documents: Documents) -> None:
        unready(pod(documents), "runtime", state=waiting(reason, 'Back-off pulling image "marway-runtime:0.1.0"'))

    return change


def no_secret_for_environment(documents: Documents) -> None:
    unready(pod(documents), "sidecar", state=waiting("CreateContainerConfigError", 'secret "s3-credentials" not found'))


def failed_mount(documents: Documents) -> None:
    found = gateway(documents)
    found["status"]["phase"] = "Pending"
    event(
        documents,
        found,
        "FailedMount",
        'MountVolume.SetUp failed for volume "admin-tokens" : secret "marway-admin-tokens" not found',
    )


def pod_not_ready(documents: Documents) -> None:
    unready(pod(documents), "sidecar")
    event(documents, pod(documents), "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")


def liveness_failed(documents: Documents) -> None:
    event(documents, pod(documents, 1), "Unhealthy", 'Liveness probe failed: Get "http://10.244.3.4:9000/healthz"')


def gateway_not_ready(documents: Documents) -> None:
    for found in component(documents, "pods", "gateway"):
        unready(found, "gateway")
        event(documents, found, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
    component(documents, "deployments", "gateway")[0]["status"]["readyReplicas"] = 0


def one_pod_of_two(documents: Documents) -> None:
    component(documents, "deployments", "pod")[0]["status"].pop("readyReplicas")
    component(documents, "deployments", "pod")[0]["status"]["readyReplicas"] = 1


def rollout_stuck(documents: Documents) -> None:
    condition(
        component(documents, "deployments", "pod")[0],
        "Progressing",
        "False",
        reason="ProgressDeadlineExceeded",
        message='ReplicaSet "marway-pod-84f4c6dd7b" has timed out progressing.',
    )


def scaled_to_nothing(documents: Documents) -> None:
    found = component(documents, "deployments", "pod")[0]
    found["spec"]["replicas"] = 0
    found["status"].pop("readyReplicas")


def no_gateway(documents: Documents) -> None:
    items(documents, "deployments").remove(component(documents, "deployments", "gateway")[0])


def no_endpoint(documents: Documents) -> None:
    for each in component(documents, "endpointslices", "pod"):
        each["endpoints"] = None


def wrong_selector(documents: Documents) -> None:
    no_endpoint(documents)
    component(documents, "services", "pod")[0]["spec"]["selector"] = {"app": "marway"}


def not_headless(documents: Documents) -> None:
    component(documents, "services", "pod")[0]["spec"]["clusterIP"] = "10.96.0.99"


def no_service(documents: Documents) -> None:
    items(documents, "services").remove(component(documents, "services", "pod")[0])


def other_version(documents: Documents) -> None:
    container(gateway(documents), "gateway")["image"] = "registry.example.org:5000/marway-gateway:0.2.0@sha256:00ff"


def no_budget(documents: Documents) -> None:
    items(documents, "poddisruptionbudgets").pop()


def no_policies(documents: Documents) -> None:
    items(documents, "networkpolicies").clear()


def only_egress_policies(documents: Documents) -> None:
    for each in items(documents, "networkpolicies"):
        each["spec"]["policyTypes"] = ["Egress"]


def autoscaler_without_metrics(documents: Documents) -> None:
    condition(
        items(documents, "horizontalpodautoscalers")[0],
        "ScalingActive",
        "False",
        reason="FailedGetResourceMetric",
        message="the HPA was unable to compute the replica count: unable to get metrics for resource cpu",
    )


def scaled_object(documents: Documents) -> None:
    documents["scaledobjects.keda.sh"] = {
        "kind": "List",
        "items": [
            {
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ScaledObject",
                "metadata": {"name": "marway-pod", "namespace": "marway"},
                "status": {
                    "conditions": [
                        {
                            "type": "Ready",
                            "status": "False",
                            "reason": "ScaledObjectCheckFailed",
                            "message": "none",
                        },
                        {"type": "Active", "status": "Unknown"},
                        {"type": "Fallback", "status": "Unknown"},
                    ]
                },
            }
        ],
    }


def keys_in_runtime(documents: Documents) -> None:
    for found in component(documents, "pods", "pod"):
        container(found, "runtime")["envFrom"] = [{"secretRef": {"name": "s3-credentials"}}]


def webhook_identity(documents: Documents) -> None:
    found = pod(documents)
    path = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
    mount = {"name": "aws-iam-token", "mountPath": path, "readOnly": True}
    source = {"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"}}
    found["spec"]["volumes"].append({"name": "aws-iam-token", "projected": {"sources": [source]}})
    for each in (container(found, "runtime"), container(found, "sidecar")):
        each.setdefault("env", []).append({"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": f"{path}/token"})
        each["volumeMounts"].append(mount)


def secret_volume_in_runtime(documents: Documents) -> None:
    found = pod(documents)
    found["spec"]["volumes"].append({"name": "s3", "secret": {"secretName": "s3-credentials"}})
    container(found, "runtime")["volumeMounts"].append({"name": "s3", "mountPath": "/etc/s3"})


def writable_store(documents: Documents) -> None:
    for found in component(documents, "pods", "pod"):
        for mount in container(found, "runtime")["volumeMounts"]:
            mount.pop("readOnly", None)


def pod_token(documents: Documents) -> None:
    found = pod(documents)
    found["spec"]["volumes"].append(TOKEN_VOLUME)
    container(found, "sidecar")["volumeMounts"].append(TOKEN_MOUNT)


def gateway_token(documents: Documents) -> None:
    found = gateway(documents)
    found["spec"]["volumes"].append(TOKEN_VOLUME)
    container(found, "gateway")["volumeMounts"].append(TOKEN_MOUNT)


def asks_the_api(documents: Documents) -> None:
    for found in component(documents, "pods", "gateway"):
        for variable in container(found, "gateway")["env"]:
            if variable["name"] == "MARWAY_GATEWAY_PODS":
                variable["value"] = "kubernetes://marway-pods:9000"


def secret_missing(documents: Documents) -> None:
    found = component(documents, "deployments", "pod")[0]
    container(found["spec"]["template"], "sidecar").setdefault("envFrom", []).append({"secretRef": {"name": "s3-keys"}})


SYMPTOMS: list[tuple[Change, str, str, str]] = [
    (unschedulable("0/3 nodes are available: 3 Insufficient memory."), "pending", "problem", "ask for less"),
    (unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."), "pending", "problem", "device plugin"),
    (unschedulable("pod has unbound immediate PersistentVolumeClaims"), "pending", "problem", "claim is bound"),
    (unschedulable("0/3 nodes are available: 3 had untolerated taint {gpu: x}"), "pending", "problem", "toleration"),
    (crash_loop, "crash loop", "problem", "sidecar keeps ending, last with status 1"),
    (runtime_out_of_memory, "out of memory", "problem", "raise the runtime's memory limit"),
    (gateway_out_of_memory, "out of memory", "problem", "lower max_body_bytes"),
    (image("ImagePullBackOff"), "image pull", "problem", "see that marway-runtime:0.1.0 exists"),
    (image("ErrImagePull"), "image pull", "problem", "imagePullSecrets"),
    (no_secret_for_environment, "container configuration", "problem", 'secret "s3-credentials" not found'),
    (failed_mount, "volumes", "problem", 'secret "marway-admin-tokens" not found'),
    (pod_not_ready, "probes", "problem", "statuscode: 503"),
    (liveness_failed, "probes", "warning", "Liveness probe failed"),
    (gateway_not_ready, "gateway Deployment", "problem", "0 of 2 ready"),
    (gateway_not_ready, "probes", "problem", "it needs the registry and one ready pod"),
    (one_pod_of_two, "pods Deployment", "warning", "1 of 2 ready"),
    (rollout_stuck, "pods Deployment", "warning", "timed out progressing"),
    (scaled_to_nothing, "pods Deployment", "problem", "kubectl scale deployment marway-pod"),
    (no_gateway, "gateway Deployment", "problem", "is it another --namespace or --context?"),
    (no_endpoint, "Service of the pods", "problem", "none of 2 pods has an address yet"),
    (wrong_selector, "Service of the pods", "problem", "no pod is app=marway"),
    (not_headless, "Service of the pods", "problem", "clusterIP: None"),
    (no_service, "Service of the pods", "problem", "apply the base again"),
    (other_version, "versions", "warning", "gateway 0.1.0, 0.2.0; sidecar 0.1.0; runtime 0.1.0"),
    (no_budget, "disruption budget", "warning", "none for pods"),
    (no_policies, "network policy", "warning", "sidecars take requests from whoever reaches them"),
    (only_egress_policies, "network policy", "warning", "none restricts who reaches gateways"),
    (autoscaler_without_metrics, "autoscaling", "warning", "FailedGetResourceMetric"),
    (scaled_object, "autoscaling", "warning", "ScaledObject marway-pod: ScaledObjectCheckFailed: none"),
    (keys_in_runtime, "credentials in the runtime", "problem", "runtime has secret s3-credentials in its environment"),
    (webhook_identity, "credentials in the runtime", "problem", "eks.amazonaws.com/skip-containers"),
    (secret_volume_in_runtime, "credentials in the runtime", "problem", "secret volume s3"),
    (writable_store, "store in the runtime", "problem", "may write to /var/lib/marway/store"),
    (pod_token, "service account token", "problem", "nothing in a pod asks the Kubernetes API"),
    (gateway_token, "service account token", "warning", "not found by kubernetes://"),
    (asks_the_api, "service account token", "problem", "add the component endpointslices"),
    (secret_missing, "secrets", "problem", "there is no Secret s3-keys"),
]


# -- what is well all the same ---------------------------------------------------------------------------------


def leaving_pod_fails(documents: Documents) -> None:
    crash_loop(documents)
    runtime_out_of_memory(documents)
    pod(documents)["metadata"]["deletionTimestamp"] = "2026-03-02T10:00:00Z"


def key_for_the_sidecar(documents: Documents) -> None:
    found = pod(documents)
    found["spec"]["volumes"].append({"name": "s3", "secret": {"secretName": "s3-credentials"}})
    sidecar = container(found, "sidecar")
    sidecar["volumeMounts"].append({"name": "s3", "mountPath": "/etc/s3"})
    sidecar["envFrom"].append({"secretRef": {"name": "s3-credentials"}})


def optional_secret(documents: Documents) -> None:
    found = component(documents, "deployments", "pod")[0]
    reference = {"name": "not-there", "optional": True}
    container(found["spec"]["template"], "sidecar")["envFrom"].append({"secretRef": reference})


def gateway_asks_and_may(documents: Documents) -> None:
    asks_the_api(documents)
    for found in component(documents, "pods", "gateway"):
        found["spec"]["volumes"].append(TOKEN_VOLUME)
        container(found, "gateway")["volumeMounts"].append(TOKEN_MOUNT)


def idle_scaled_object(documents: Documents) -> None:
    scaled_object(documents)
    conditions = documents["scaledobjects.keda.sh"]["items"][0]["status"]["conditions"]
    conditions[0].update(status="True", reason="ScaledObjectReady", message="ScaledObject is defined correctly")


def quiet_autoscaler(documents: Documents) -> None:
    condition(items(documents, "horizontalpodautoscalers")[0], "ScalingActive", "False", reason="ScalingDisabled")


def other_pods_event(documents: Documents) -> None:
    event(documents, {"metadata": {"name": "somebody-else"}}, "FailedMount", "no such volume")


def policy_by_expression(documents: Documents) -> None:
    items(documents, "networkpolicies")[:] = items(documents, "networkpolicies")[:1]
    items(documents, "networkpolicies")[0]["spec"] = {
        "podSelector": {
            "matchExpressions": [
                {"key": "app.kubernetes.io/component", "operator": "In", "values": ["gateway", "pod"]},
                {"key": "app.kubernetes.io/name", "operator": "Exists"},
                {"key": "batch", "operator": "DoesNotExist"},
                {"key": "app.kubernetes.io/name", "operator": "NotIn", "values": ["other"]},
            ]
        },
        "policyTypes": ["Ingress"],
    }


def tags_with_ports_and_digests(documents: Documents) -> None:
    for found in items(documents, "pods"):
        for each in (*found["spec"].get("initContainers", ()), *found["spec"]["containers"]):
            each["image"] = f"registry.example.org:5000/team/{each['image']}@sha256:ab12"


WELL_ALL_THE_SAME: list[Change] = [
    leaving_pod_fails,
    key_for_the_sidecar,
    optional_secret,
    gateway_asks_and_may,
    idle_scaled_object,
    quiet_autoscaler,
    other_pods_event,
    policy_by_expression,
    tags_with_ports_and_digests,
]


class Doctor:
    """Runs the command over documents."""

    def __init__(self, directory: Path, documents: Documents, *, secrets: tuple[str, ...] = SECRETS) -> None:
        self.kubectl = StandInKubectl(directory / "kubectl", documents, secrets=secrets)
        self.path = f"{self.kubectl.bin}{os.pathsep}{os.environ['PATH']}"

    def findings(self, *arguments: str, status: int | None = None) -> list[dict[str, str]]:
        done = marway("doctor", "--cluster", "--json", *arguments, PATH=self.path)
        found: list[dict[str, str]] = json.loads(done.stdout)
        problems = any(each["level"] == "problem" for each in found)
        assert done.returncode == (int(problems) if status is None else status), done.stderr
        return found


@pytest.fixture
def examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Examines a cluster that was changed, in this process."""

    def examine(change: Change) -> list[dict[str, str]]:
        documents = copy.deepcopy(WELL)
        change(documents)
        monkeypatch.setenv("PATH", Doctor(tmp_path, documents).path)
        return [asdict(found) for found in examine_cluster(Kubectl(namespace=NAMESPACE))]

    return examine


def troubles(findings: list[dict[str, str]]) -> list[dict[str, str]]:
    return [each for each in findings if each["level"] != "ok"]


def test_a_cluster_that_is_well(tmp_path: Path) -> None:
    """What the base installs is well: nothing but ok, status 0, and only reads were made, of no secret's value."""
    doctor = Doctor(tmp_path, WELL)
    findings = doctor.findings("--namespace", "models", "--context", "prod", status=0)
    assert troubles(findings) == []
    assert {each["check"] for each in findings} == {
        "gateway Deployment",
        "pods Deployment",
        "Service of the pods",
        "versions",
    }
    calls = doctor.kubectl.calls
    assert {call[0] for call in calls} == {"get"}
    assert len(calls) == 10
    for call in calls:
        assert call[call.index("--namespace") + 1] == "models"
        assert call[call.index("--context") + 1] == "prod"
    (secrets,) = [call for call in calls if call[1] == "secrets"]
    assert not {"--output", "-o"} & set(secrets), "any format but the table brings the values along"


@pytest.mark.parametrize(
    ("change", "check", "level", "says"),
    SYMPTOMS,
    ids=[f"{number}-{each[1]}" for number, each in enumerate(SYMPTOMS)],
)
def test_a_symptom_is_found(examined: Examine, change: Change, check: str, level: str, says: str) -> None:
    """A symptom is one finding of its kind and level, which says what was found and what to do."""
    findings = examined(change)
    found = [each for each in findings if (each["check"], each["level"]) == (check, level)]
    texts = [f"{each['found']} {each['advice']}" for each in found]
    assert any(says in text for text in texts), troubles(findings)
    assert all(each["advice"] for each in troubles(findings))


@pytest.mark.parametrize("change", WELL_ALL_THE_SAME, ids=lambda change: change.__name__)
def test_what_looks_like_a_symptom_and_is_none(examined: Examine, change: Change) -> None:
    """What may well be so is no finding."""
    assert troubles(examined(change)) == []


def test_pods_with_one_trouble_are_one_finding(examined: Examine) -> None:
    """Pods that have the same trouble are named together."""
    (found,) = troubles(examined(writable_store))
    assert found["found"].startswith("marway-pod-6d9c7b5f4d-2xw8k, marway-pod-6d9c7b5f4d-h5tqz: container runtime")


def test_for_people(tmp_path: Path) -> None:
    """Without --json there is a line a check, and how many problems there are."""
    documents = copy.deepcopy(WELL)
    crash_loop(documents)
    doctor = Doctor(tmp_path, documents)
    done = marway("doctor", "--cluster", PATH=doctor.path)
    assert done.returncode == 1
    assert "crash loop" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 problem"


@pytest.mark.parametrize("kind", ["secrets", "events", "networkpolicies.networking.k8s.io", "services", "pods"])
def test_kinds_that_may_not_be_listed(tmp_path: Path, kind: str) -> None:
    """What may not be listed is said, and is no reason to report what depends on it as missing."""
    doctor = Doctor(tmp_path, WELL)
    doctor.kubectl.forbid(kind)
    (found,) = troubles(doctor.findings(status=0))
    assert (found["check"], found["level"]) == ("rights", "warning")
    assert f"you may not list {kind} in namespace marway" in found["found"]


def test_without_kubectl_there_is_one_clear_line(tmp_path: Path) -> None:
    """No kubectl on PATH is said in one line, with where it is to be had."""
    line = refused(marway("doctor", "--cluster", PATH=str(tmp_path)))
    assert "there is no kubectl on PATH" in line
    assert "https://kubernetes.io/docs/tasks/tools/" in line


@pytest.mark.parametrize(
    "says",
    [
        "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?",
        'error: context "prod" does not exist',
        "E1121 memcache.go:265] couldn't get current server API group list\nUnable to connect to the server: EOF",
    ],
)
def test_a_cluster_that_cannot_be_read_is_one_clear_line(tmp_path: Path, says: str) -> None:
    """What kubectl says last is what is said."""
    doctor = Doctor(tmp_path, WELL)
    doctor.kubectl.fail(says)
    assert says.splitlines()[-1] in refused(marway("doctor", "--cluster", PATH=doctor.path))


@pytest.mark.parametrize("text", ["", "{}", "<html>", '{"items":[{"metadata":{}}]}', '{"items":7}'])
def test_a_kubectl_that_prints_something_else(tmp_path: Path, text: str) -> None:
    """Something else than a list is one clear line."""
    doctor = Doctor(tmp_path, WELL)
    doctor.kubectl.print("pods", text)
    line = refused(marway("doctor", "--cluster", PATH=doctor.path))
    assert "kubectl get pods printed something else than a list" in line


@pytest.mark.parametrize("flag", ["--namespace", "--context", "--gateway"])
def test_flags_of_a_cluster_want_one(flag: str) -> None:
    """A flag for clusters without --cluster is wrong usage."""
    done = marway("doctor", flag, "x")
    assert done.returncode == 2
    assert "it goes with --cluster" in done.stderr


# -- the gateway's own word ------------------------------------------------------------------------------------


@pytest.fixture
def admin() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """An admin port that shows the pods in a list."""
    shown: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(shown).encode()
            self.send_response(200 if self.path == "/pods" else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", shown
        server.shutdown()
        thread.join()


def view(found: dict[str, Any], **changes: object) -> dict[str, object]:
    address = found["status"]["podIP"]
    known = {"name": f"{address}:9000", "url": f"http://{address}:9000", "eligible": True, "trouble": None}
    return {**known, **changes}


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ([{}, {}], "ok", "2, all of them take requests"),
        ([{}, {"eligible": False, "trouble": "is draining"}], "ok", "2"),
        ([{}, {"eligible": False, "trouble": "refused the connection"}], "problem", "refused the connection"),
        ([{}], "warning", "marway-pod-6d9c7b5f4d-h5tqz: ready, and unknown to the gateway"),
        ([{"name": "marway-pod-6d9c7b5f4d-2xw8k", "url": "http://10.9.9.9:1"}, {}], "ok", "2"),
        ([], "problem", "it knows none"),
    ],
)
def test_what_a_gateway_says_of_its_pods(
    tmp_path: Path,
    admin: tuple[str, list[dict[str, object]]],
    changes: list[dict[str, object]],
    level: str,
    says: str,
) -> None:
    """With --gateway, pods that get no requests and ready ones that it does not know are findings, drains are not."""
    url, shown = admin
    shown.extend(view(pod(WELL, number), **change) for number, change in enumerate(changes))
    findings = Doctor(tmp_path, WELL).findings("--gateway", url)
    (found,) = [each for each in findings if each["check"] == "pods of the gateway"]
    assert found["level"] == level
    assert says in found["found"]


def test_a_gateway_that_does_not_answer_is_a_finding(tmp_path: Path) -> None:
    """A gateway that cannot be reached is a problem among the others, with how to reach it."""
    findings = Doctor(tmp_path, WELL).findings("--gateway", "http://127.0.0.1:9", status=1)
    (found,) = troubles(findings)
    assert "no gateway answers at http://127.0.0.1:9" in found["found"]
    assert "port-forward" in found["advice"]
