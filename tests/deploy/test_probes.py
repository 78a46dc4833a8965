"""The probes of the manifests, asked of real programs."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest

from support.kubernetes.objects import container
from support.kubernetes.render import overlay
from support.up import Up

# Extended: test_manifests.py has these probes; tests/gateway/test_health.py and tests/sidecar/api/test_app.py have
# their routes.
pytestmark = [pytest.mark.e2e, pytest.mark.extended]
_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def test_probes_pass_on_what_runs(up: Up) -> None:
    """Each HTTP probe of gateway and sidecar is answered with 200 by the port that it names."""
    documents = overlay("s3")
    urls = {
        "gateway": {"http": up.ready["gateway"], "admin": up.ready["admin"]},
        "sidecar": {"http": up.ready["pods"][0]["url"]},
    }
    for name, ports in urls.items():
        spec = container(documents, name).spec
        for probe in _PROBES:
            asked = spec[probe]["httpGet"]
            answer = httpx.get(f"{ports[asked['port']]}{asked['path']}", timeout=10, trust_env=False)
            assert answer.status_code == 200, f"{name}, {probe}: {answer.text}"


def test_the_runtimes_probe_tells_one_that_answers_from_none(up: Up) -> None:
    """The runtime's liveness probe passes on its socket, and fails where nobody listens."""
    command = container(overlay("s3"), "runtime").spec["livenessProbe"]["exec"]["command"]
    assert command[:2] == ["python", "-ISc"]
    socket = up.home / "pods" / up.ready["pods"][0]["name"] / "runtime.sock"
    assert socket.is_socket()
    for path, passes in ((socket, True), (socket.with_name("nobody.sock"), False)):
        script = command[2].replace("/run/marway/runtime.sock", str(path))
        assert str(path) in script
        done = subprocess.run([sys.executable, "-ISc", script], capture_output=True, text=True, timeout=30)
        assert (done.returncode == 0) == passes, done.stderr
