from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from marway.refs import new_ulid
from marway_archiver import publish
from support.reaper import reaped
from support.seaweed import S3Server, seaweed
from support.up import Up

MODELS = Path(__file__).parent / "e2e" / "models"

# How long an example takes says how busy the machine is; pytest's own time-out ends what hangs.
hypothesis.settings.register_profile("marway", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("marway")


_TOGETHER = ("tests/deploy/containers", "tests/faults", "tests/runtime")
"""Folders whose files share what takes long to start."""
_SHARE_UP = {
    "tests/deploy/test_probes.py",
    "tests/docs/test_commands.py",
    *(
        f"tests/e2e/test_{name}.py"
        for name in (
            *("batching", "failed_requests", "frames", "hints", "lifecycle", "monitoring", "predict", "protocols"),
            *("release_comparison", "release_gateway", "streaming", "tables"),
        )
    ),
}
"""Files that share the running `marway up` of the fixture `up`; one that is missing here would start another
(tests/docs/test_structure.py)."""


_BY_PARAMETER = "tests/backends/test_releases.py"
"""File whose tests start what their parameter names: all with the same one stay together, and no others."""


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives a process of pytest-xdist a whole file, or all the files that share what they start."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in _SHARE_UP:
            return "up"
        if file == _BY_PARAMETER:
            return file + nodeid.rpartition("[")[2]
        return next((folder for folder in _TOGETHER if file.startswith(f"{folder}/")), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    # Not `--dist loadgroup`: xdist 3.8 cannot mark groups under pytest 9.2.
    return _Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts real parts comes first, for it takes longest."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None and item.get_closest_marker("install") is None)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_reaches_children() -> None:
    """Where a shell has started the tests in the background, SIGINT is ignored, and every process of theirs inherits
    that: those that end by it would not.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests start ends with them, also when they are killed."""
    with reaped(tmp_path_factory.getbasetemp()):
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_class_archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One archive of Java's classes for all TorchServes: the first writes it, the others start from it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # by all processes of one run of tests
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARWAY_RUNTIME_CLASS_ARCHIVES", str(shared / "java"))
        yield


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One `marway up --demo` with two pods for all tests that leave it running."""
    home = tmp_path_factory.mktemp("up") / "home"
    with Up(home, "--demo", "--pods", "2") as running:
        for name in ("probe", "broken"):
            publish(
                model_name=name,
                version="1.0",
                handler=str(MODELS / f"{name}.py"),
                registry=running.registry,
                label="PROD",
            )
        yield running


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One real S3 server for all tests."""
    with seaweed() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, and the environment set to use it."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    return s3_server


@pytest.fixture
def s3_url(s3: S3Server) -> str:
    """An empty registry in the S3 server."""
    return f"s3://{s3.bucket}/{new_ulid().lower()}"


@pytest.fixture
def client(up: Up) -> Iterator[httpx.Client]:
    """A client of that gateway."""
    with httpx.Client(base_url=up.gateway, timeout=60, trust_env=False) as opened:
        yield opened
