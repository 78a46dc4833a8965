"""What archives require is installed from the registry's wheels, on either engine."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.up import Up
from support.wheels import only_these, published, wheel

# Each part is tested by itself in tests/runtime/environments, tests/archiver/publishing and tests/core/registry.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.extended]


def workers(home: Path) -> list[dict[str, Any]]:
    """Return the workers of the pod."""
    transport = httpx.HTTPTransport(uds=str(next(home.glob("pods/*/runtime.sock"))))
    with httpx.Client(transport=transport, base_url="http://runtime", trust_env=False) as client:
        found: list[dict[str, Any]] = client.get("/workers").json()["workers"]
        return found


@pytest.mark.parametrize(
    ("engine", "fork", "expected"),
    [
        ("torchserve", "true", ("plain", "an environment of its own")),
        ("torchserve", "false", ("plain", "forking is off")),
        ("native", "true", ("forked", "")),
        ("native", "false", ("plain", "forking is off")),
    ],
)
def test_versions_with_requirements_that_clash_are_served_side_by_side(
    engine: str, fork: str, expected: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets its own packages, what the pod has and satisfies is not installed again, what does not is replaced."""
    wheels = tmp_path / "wheels"
    for version in ("1.0", "2.0"):
        wheel(wheels, "marway-probe", version, f"WHAT = 'probe {version}'\n", ["numpy>=0.1", "torch>=2"])
    wheel(wheels, "idna", "0.1")
    wheel(wheels, "numpy", "0.5")
    only_these(monkeypatch, wheels)
    home = tmp_path / "home"
    with Up(home, "--engine", engine, env={"MARWAY_RUNTIME_FORK_WORKERS": fork}) as running:
        for version, needs in (("1.0", "marway-probe==1.0\nidna<1\n"), ("2.0", "marway-probe==2.0\n")):
            published(tmp_path / version, running.registry, needs, version=version)
        answers = {}
        for version in ("1.0", "2.0"):
            answer = httpx.post(
                f"{running.gateway}/predict/needs/{version}", content=b"x", timeout=120, trust_env=False
            )
            assert answer.status_code == 200, answer.text
            answers[version] = answer.json()
        modes = {worker["pid"]: (worker["mode"], worker["reason"]) for worker in workers(home)}
        environments = list(home.glob("pods/*/environments/*-*/"))
    numpy, idna = importlib.metadata.version("numpy"), importlib.metadata.version("idna")
    one, two = answers["1.0"], answers["2.0"]
    assert (one["probe"], one["idna"], one["numpy"]) == ("probe 1.0", "0.1", numpy)
    assert (two["probe"], two["idna"], two["numpy"]) == ("probe 2.0", idna, numpy)
    assert modes[one["pid"]] == modes[two["pid"]] == expected, json.dumps(modes)
    assert len(environments) == 2
