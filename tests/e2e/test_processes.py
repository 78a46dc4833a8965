"""What `marway up` starts, and that nothing of it is left behind."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from support.cli import marway, refused
from support.up import STOP_TIMEOUT_S, Up, processes_of, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
MODELS = Path(__file__).parent / "models"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A packed archive of the probe handler."""
    done = marway(
        *("pack", "--model-name", "probe", "--version", "1.0", "--handler", str(MODELS / "probe.py")),
        *("--export-path", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "probe.mar"


def predict(up: Up, content: bytes = b"hello") -> httpx.Response:
    return httpx.post(f"{up.gateway}/predict/probe", content=content, timeout=60, trust_env=False)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.extended),  # what Ctrl-C does, by another signal
        pytest.param(signal.SIGINT, id="Ctrl-C"),
    ],
)
def test_one_archive_is_served_until_a_signal_and_nothing_is_left(
    tmp_path: Path, archive: Path, number: signal.Signals
) -> None:
    """`marway up some.mar` publishes, releases and serves it; a signal stops everything within 20 s, with status 0."""
    home = tmp_path / "it's a home"
    config = tmp_path / "marway.toml"
    config.write_text("[up]\nport = 1\n[gateway]\nmax_body_bytes = 1000\n[sidecar]\nqueue_limit = 77\n")
    with Up(home, str(archive), "--config", str(config)) as up:
        assert predict(up).status_code == 200
        assert (
            predict(up, b"x" * 1001).status_code == 413
        )  # the gateway has its table of the file; the flag won over [up]
        assert json.loads(marway("models", "--registry", up.registry, "--json").stdout) == [
            {"name": "probe", "labels": {"PROD": "1.0"}, "versions": ["1.0"]}
        ]
        names = {" ".join(process.info["cmdline"]) for process in processes_of(home)}
        for part in (
            "marway up",
            "marway runtime",
            "marway sidecar",
            "marway gateway",
            "ModelServer",
            "marway_runtime.forkserver",
            "marway-worker-shim",
        ):
            assert any(part in name for name in names), f"{part} has the home on its command line"
        started = time.monotonic()
        assert up.stop(number) == 0, up.stderr
        assert time.monotonic() - started < STOP_TIMEOUT_S
        assert processes_of(home) == []
        assert not (home / "ready.json").exists()


@pytest.mark.extended  # tests/faults/test_random_schedule.py and tests/gateway/surfaces/test_native.py
def test_a_signal_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while the examples train and the pod starts ends all of it."""
    home = tmp_path / "home"
    up = Up(home, "--demo")
    try:
        up.wait_for("output")  # the first line of a training script
        assert up.stop(signal.SIGINT) == 0, up.stderr
        assert processes_of(home) == []
    finally:
        up.end()


def test_kill_9_of_the_parent_leaves_nothing(tmp_path: Path, archive: Path) -> None:
    """When `marway up` is killed hard, all that it started is gone within 10 s."""
    home = tmp_path / "home"
    with Up(home, str(archive)) as up:
        assert predict(up).status_code == 200
        up.process.kill()
        wait_until(lambda: not processes_of(home), timeout_s=10, what="everything gone after kill -9")


@pytest.mark.extended  # every run of tests has several side by side
def test_two_run_side_by_side(tmp_path: Path, archive: Path) -> None:
    """Two homes serve at once on one machine, and one that stops leaves the other alone."""
    with Up(tmp_path / "one", str(archive)) as one, Up(tmp_path / "two", str(archive)) as two:
        assert predict(one).status_code == 200
        assert predict(two).status_code == 200
        assert one.stop() == 0
        assert predict(two).status_code == 200
        held = marway("up", "--home", str(tmp_path / "two"), "--port", "0")
        assert "in use by another marway up" in refused(held)
        taken = two.gateway.rpartition(":")[2]
        assert f"port {taken} cannot be used" in refused(marway("up", "--home", str(tmp_path / "3"), "--port", taken))


@pytest.mark.extended  # tests/faults/test_random_schedule.py and tests/gateway/surfaces/test_native.py
def test_a_pod_that_dies_comes_back(tmp_path: Path, archive: Path) -> None:
    """After kill -9 of TorchServe, and of the sidecar, predictions succeed again without anybody's help."""
    home = tmp_path / "home"
    with Up(home, str(archive)) as up:
        assert predict(up).status_code == 200
        for part in ("org.pytorch.serve.ModelServer", "marway sidecar", "marway runtime"):
            victim = next(process for process in processes_of(home) if part in " ".join(process.info["cmdline"]))
            victim.kill()
            victim.wait(10)
            wait_until(
                lambda victim=victim: not psutil.pid_exists(victim.pid) and predict(up).status_code == 200,
                timeout_s=60,
                what=f"predictions after {part} was killed",
            )


@pytest.mark.extended  # tests/faults/test_random_schedule.py and tests/gateway/surfaces/test_native.py
def test_no_pod_gives_503_with_retry_after(tmp_path: Path, archive: Path) -> None:
    """While no pod is up the gateway says so at once, and when to come back."""
    home = tmp_path / "home"
    with Up(home, str(archive)) as up:
        frozen = [process for process in processes_of(home) if "marway up" in " ".join(process.info["cmdline"])]
        for process in frozen:
            process.suspend()  # so that nobody restarts the sidecar
        try:
            for process in processes_of(home):
                if "marway sidecar" in " ".join(process.info["cmdline"]):
                    process.kill()
            answer = predict(up)
            assert (answer.status_code, answer.json()["code"]) == (503, "no_pod_available")
            assert int(answer.headers["retry-after"]) >= 1
        finally:
            for process in frozen:
                process.resume()


@pytest.mark.extended  # tests/docs/test_commands.py starts the demo, too
def test_a_home_with_the_demo_is_ready_soon(tmp_path: Path) -> None:
    """A second `marway up --demo` in a home trains nothing again."""
    home = tmp_path / "home"
    with Up(home, "--demo") as first:
        digests = sorted((home / "registry" / "archives" / "sha256").iterdir())
        assert first.stop() == 0
    started = time.monotonic()
    with Up(home, "--demo") as second:
        took = time.monotonic() - started
        prediction = second.wait_for("prediction")
        assert json.loads(prediction["answer"])["label"] == "set_alarm"
        assert sorted((home / "registry" / "archives" / "sha256").iterdir()) == digests
    print(f"ready again after {took:.1f} s (the README promises 15)")
