"""Variables that begin with MARWAY_ and have no effect are named; those of others are left alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from marway.settings import PARTS, variable_of
from marway_ops.shell.environment import settings_class, unknown_variables
from support.cli import marway, refused

ROOT = Path(__file__).parents[2]
# What kubelet gives a container beside our Services, where `enableServiceLinks` is on:
# https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/envvars/envvars_test.go shows such lists.
SERVICE_LINKS = """
MARWAY_GATEWAY_SERVICE_HOST=10.96.7.1
MARWAY_GATEWAY_SERVICE_PORT=8000
MARWAY_GATEWAY_SERVICE_PORT_HTTP=8000
MARWAY_GATEWAY_SERVICE_PORT_GRPC=8002
MARWAY_GATEWAY_PORT=tcp://10.96.7.1:8000
MARWAY_GATEWAY_PORT_8000_TCP=tcp://10.96.7.1:8000
MARWAY_GATEWAY_PORT_8000_TCP_PROTO=tcp
MARWAY_GATEWAY_PORT_8000_TCP_PORT=8000
MARWAY_GATEWAY_PORT_8000_TCP_ADDR=10.96.7.1
MARWAY_GATEWAY_PORT_8002_TCP=tcp://10.96.7.1:8002
MARWAY_GATEWAY_PORT_8002_TCP_PROTO=tcp
MARWAY_GATEWAY_PORT_8002_TCP_PORT=8002
MARWAY_GATEWAY_PORT_8002_TCP_ADDR=10.96.7.1
MARWAY_GATEWAY_ADMIN_SERVICE_HOST=10.96.7.2
MARWAY_GATEWAY_ADMIN_SERVICE_PORT=8001
MARWAY_GATEWAY_ADMIN_SERVICE_PORT_ADMIN=8001
MARWAY_GATEWAY_ADMIN_PORT=tcp://10.96.7.2:8001
MARWAY_GATEWAY_ADMIN_PORT_8001_TCP=tcp://10.96.7.2:8001
MARWAY_GATEWAY_ADMIN_PORT_8001_TCP_PROTO=tcp
MARWAY_GATEWAY_ADMIN_PORT_8001_TCP_PORT=8001
MARWAY_GATEWAY_ADMIN_PORT_8001_TCP_ADDR=10.96.7.2
MARWAY_SERVICE_HOST=10.96.7.3
MARWAY_SERVICE_PORT=80
MARWAY_PORT=tcp://10.96.7.3:80
MARWAY_PORT_80_TCP=tcp://10.96.7.3:80
MARWAY_PORT_80_TCP_PROTO=tcp
MARWAY_PORT_80_TCP_PORT=80
MARWAY_PORT_80_TCP_ADDR=10.96.7.3
"""
LINKS = dict(line.split("=", 1) for line in SERVICE_LINKS.split())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MARWAY_GATEWAY_PROT", "MARWAY_GATEWAY_PORT"),
        ("MARWAY_GATWAY_PORT", "MARWAY_GATEWAY_PORT"),
        ("MARWAY_SIDECAR_DRAIN_TIMEOUT", "MARWAY_SIDECAR_DRAIN_TIMEOUT_S"),
        ("MARWAY_RUNTIME_JAVA_OPTION", "MARWAY_RUNTIME_JAVA_OPTIONS"),
        ("MARWAY_UP_PROT", "MARWAY_UP_PORT"),
        ("MARWAY_REGISTY", "MARWAY_REGISTRY"),
        ("MARWAY_TOKEN_FLIE", "MARWAY_TOKEN_FILE"),
        ("marway_registry", "MARWAY_REGISTRY"),
    ],
)
def test_a_slip_is_named_with_what_was_meant(name: str, meant: str) -> None:
    """A variable that nothing reads is warned of, with the closest one that something reads."""
    assert list(unknown_variables({name: "x"})) == [f"the variable {name} has no effect; did you mean {meant!r}?"]


def test_every_setting_is_known() -> None:
    """No variable of any part's settings, in either case, is taken for a slip."""
    for part in PARTS:
        kind = settings_class(part)
        assert kind is not None
        names = [variable_of(part, field) for field in kind.model_fields]
        assert not list(unknown_variables({**dict.fromkeys(names, "1"), **dict.fromkeys(map(str.lower, names), "1")}))


def test_what_kubernetes_sets_is_no_slip() -> None:
    """The variables that kubelet makes of Services are nobody's slip, and one beside them still is."""
    assert list(unknown_variables(LINKS)) == []
    assert len(list(unknown_variables({**LINKS, "MARWAY_GATEWAY_PROT": "9000", "MARWAY_PORT_9_TPC": "x"}))) == 2
    done = marway("--version", **LINKS)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_services_variable_in_place_of_a_setting_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Where Kubernetes' MARWAY_GATEWAY_PORT meets the setting of that name, the error says what keeps it away."""
    said = refused(marway("gateway", "--registry", tmp_path.as_uri(), cwd=tmp_path, **LINKS))
    assert "MARWAY_GATEWAY_" in said
    assert "enableServiceLinks: false" in said


def test_the_projects_own_names_are_known() -> None:
    """Every variable that our code, manifests and documents name is one that has an effect."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    folders = ("archiver/", "benchmarks/", "config/", "core/", "deploy/", "docs/", "gateway/", "sidecar/", "README.md")
    names: set[str] = set()
    for path in tracked.split("\0"):
        if path.startswith(folders) and path.endswith((".py", ".md", ".toml", ".yaml", "Dockerfile", "Containerfile")):
            names |= set(re.findall(r"\bMARWAY_[A-Z0-9_]*[A-Z0-9]\b(?!_)", (ROOT / path).read_text()))
    assert "MARWAY_GATEWAY_PODS" in names
    # Within the runtime's own processes, from one of ours to another; and what begins other names.
    names -= {
        "MARWAY_MAX_RESPONSE_BYTES",
        "MARWAY_WORKER_OVERLAYS",
        "MARWAY_GATEWAY",
        "MARWAY_SIDECAR",
        "MARWAY_RUNTIME",
        "MARWAY_UP",
    }
    assert list(unknown_variables(dict.fromkeys(names, "1"))) == []


@pytest.mark.parametrize(
    "verb",
    [
        ("--version",),
        ("models", "--registry", "REGISTRY"),
        *((part, "--config", "missing.toml") for part in PARTS),
    ],
)
def test_every_verb_warns_on_stderr(tmp_path: Path, verb: tuple[str, ...]) -> None:
    """The warning is one line on stderr; the verb does its work."""
    arguments = [tmp_path.as_uri() if word == "REGISTRY" else word for word in verb]
    done = marway(*arguments, cwd=tmp_path, MARWAY_GATEWAY_PROT="9000")
    warning = "the variable MARWAY_GATEWAY_PROT has no effect; did you mean 'MARWAY_GATEWAY_PORT'?"
    assert done.stderr.splitlines()[0] == f"marway: warning: {warning}"
