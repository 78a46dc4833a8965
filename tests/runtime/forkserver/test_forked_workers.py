"""Workers are forked, and are what TorchServe's own start would have made."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from marway.wire import model_log
from marway.wire.runtime import LOGS, RUNTIME_SOCKET
from support.runtime import Runtime
from support.up import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]
FORKED = 'marway_runtime_workers{mode="forked",reason=""}'


@pytest.fixture
def model(runtime: Runtime, request: pytest.FixtureRequest) -> Iterator[str]:
    """A registered model with one worker, under a name of the test's own."""
    name = request.node.name.replace("[", "-").replace("]", "")
    runtime.register(name)
    yield name
    runtime.unregister(name)
    wait_until(lambda: not runtime.workers(name), timeout_s=20, what="the worker is gone")


def test_workers_are_forked_by_default(runtime: Runtime, model: str) -> None:
    """The worker is forked, and no worker at all is plain: a silent fall-back fails here."""
    worker = runtime.worker(model)
    assert (worker.mode, worker.reason) == ("forked", "")
    assert psutil.Process(worker.pid).ppid() == runtime.fork_server.pid
    state = runtime.state()
    assert {worker.mode for worker in state.workers} == {"forked"}
    assert runtime.metric(FORKED) == len(state.workers) >= 1
    assert state.base_bytes > 50 * 2**20


def test_torchserve_knows_the_worker_by_its_own_pid(runtime: Runtime, model: str) -> None:
    """The pid in TorchServe's description, the one of `GET /workers` and the worker's own are one."""
    described = runtime.client.get(f"{runtime.info.addresses['management']}/models/{model}").json()
    assert [worker["pid"] for worker in described[0]["workers"]] == [runtime.worker(model).pid]
    assert runtime.ask(model)["pid"] == runtime.worker(model).pid


def test_a_forked_worker_is_set_up_like_a_plain_one(runtime: Runtime, model: str) -> None:
    """Directory, search path, arguments, main script and threads are those of a Python that TorchServe started."""
    told = runtime.ask(model)
    assert told["path"][0] == told["cwd"]
    assert told["environment"]["PYTHONPATH"].split(":")[0] in told["path"]
    assert told["main"] == told["arguments"][0]
    assert told["main"].endswith("/ts/model_service_worker.py")
    assert told["arguments"][1:3] == ["--sock-type", "unix"]
    assert told["threads"] == ["MainThread", "marway-lifeline"]
    assert told["torch_threads"] == 1
    assert told["cuda_initialized"] is False
    process = psutil.Process(told["pid"])
    assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid


def test_a_worker_sees_no_secrets(runtime: Runtime, model: str) -> None:
    """Nothing secret from the runtime's environment is in the worker's, as it sees it and as the kernel shows it."""
    worker = runtime.worker(model)
    shown = [runtime.ask(model)["environment"], psutil.Process(worker.pid).environ()]
    shown.append(runtime.shim(worker).environ())
    for environment in shown:
        assert not [name for name, value in environment.items() if "secret" in value]
        assert not {"AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "MARWAY_REGISTRY"} & set(environment)


def test_two_workers_draw_different_numbers(runtime: Runtime, model: str) -> None:
    """Neither random, numpy nor torch gives two workers the same numbers."""
    runtime.register("other")
    try:
        one, other = runtime.ask(model, "random"), runtime.ask("other", "random")
        assert [a == b for a, b in zip(one, other, strict=True)] == [False, False, False]
    finally:
        runtime.unregister("other")


def test_prints_and_tracebacks_reach_the_log(runtime: Runtime, model: str) -> None:
    """What a handler prints on either stream, and what it raises, is in models.log under its worker's name, each thing
    one line."""
    runtime.ask(model, "print a word to find")
    assert runtime.predict(model, "raise an error to find").status_code == 503

    def found() -> set[tuple[str, str | None]]:
        lines = model_log.read(runtime.directory / LOGS, [f"{model}_1.0"])
        return {(line.level, (line.traceback and line.traceback.splitlines()[-1]) or line.text) for line in lines}

    wanted = {
        ("info", "a word to find"),
        ("warning", "a word to find"),
        ("warning", "ValueError: an error to find"),
    }
    wait_until(lambda: wanted <= found(), timeout_s=10, what="the lines")


def test_a_request_over_rest_is_named_by_its_header(runtime: Runtime, model: str) -> None:
    """TorchServe's own requests are known by their `X-Request-Id`, if that is an id; another is TorchServe's."""
    url = f"{runtime.info.addresses['inference']}/predictions/{model}"
    for said in ("r-1", "no id"):
        assert runtime.client.post(url, content=b"print a named line", headers={"x-request-id": said}).is_success

    def named() -> list[tuple[str, ...]]:
        lines = model_log.read(runtime.directory / LOGS, [f"{model}_1.0"])
        return [line.request_ids for line in lines if (line.level, line.text) == ("info", "a named line")]

    wait_until(lambda: len(named()) == 2, timeout_s=10, what="the lines")
    first, (second,) = named()
    assert first == ("r-1",)
    assert second != "no id"
    assert " " not in second


def test_an_archive_shadows_nothing_of_a_forked_worker(runtime: Runtime, tmp_path: Path) -> None:
    """An archive with packages called as ours, TorchServe's and torch, and a `sitecustomize.py`, which another tool has
    packed (`marway pack` refuses it), loads and answers, and is not taken for them."""
    archive = tmp_path / "shadowing.mar"
    shutil.copy(runtime.info.model_store / "inspect.mar", archive)
    with zipfile.ZipFile(archive, "a") as file:
        for name in ("marway", "marway_runtime", "ts", "torch", "numpy"):
            file.writestr(f"{name}/__init__.py", "raise RuntimeError('the archive was taken for it')")
        file.writestr("sitecustomize.py", "print('sitecustomize ran', flush=True)")
    shutil.copy(archive, runtime.info.model_store)
    runtime.register("shadowing", archive="shadowing.mar")
    try:
        assert runtime.worker("shadowing").mode == "forked"
        assert runtime.ask("shadowing", "random")
        assert "sitecustomize ran" not in runtime.models_log()
    finally:
        runtime.unregister("shadowing")


def test_the_fork_server_has_one_thread(runtime: Runtime) -> None:
    """A fork copies one thread, so there is but one; and the shared session belongs to it alone."""
    assert runtime.fork_server.num_threads() == 1


def test_a_forked_worker_takes_a_fifth_of_a_plain_ones_memory(
    runtime: Runtime, model: str, plain_runtime: Runtime
) -> None:
    """Private memory of an idle worker, its shim included, is under a fifth of what a plain one takes."""
    plain_runtime.register(model)
    plain, forked = plain_runtime.worker(model), runtime.worker(model)
    assert (plain.mode, plain.reason) == ("plain", "forking is off")
    assert plain.private_bytes > 5 * forked.private_bytes > 0
    print(f"forked {forked.private_bytes / 2**20:.1f} MiB, plain {plain.private_bytes / 2**20:.1f} MiB")


@pytest.fixture
def plain_runtime(tmp_path_factory: pytest.TempPathFactory, runtime: Runtime) -> Iterator[Runtime]:
    """A runtime that does not fork, on the same store."""
    home = tmp_path_factory.mktemp("plain") / "home"
    with Runtime(home, runtime.info.model_store, {"MARWAY_RUNTIME_FORK_WORKERS": "false"}) as running:
        yield running


@pytest.mark.parametrize("status", [3, 0])
def test_a_worker_that_ends_ends_its_shim(runtime: Runtime, model: str, status: int) -> None:
    """When a worker exits, its shim is gone too and TorchServe starts another, forked again."""
    first = runtime.worker(model)
    shim = runtime.shim(first)
    assert runtime.predict(model, f"exit {status}").status_code == 500
    wait_until(lambda: _replaced(runtime, model, first.pid), timeout_s=30, what="another worker")
    assert not shim.is_running()
    assert runtime.worker(model).mode == "forked"
    wait_until(lambda: runtime.predict(model).status_code == 200, timeout_s=30, what="it serves")


def test_a_killed_worker_is_started_again_through_its_shim(runtime: Runtime, model: str) -> None:
    """After kill -9 of a worker another one, forked, serves."""
    first = runtime.worker(model)
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: _replaced(runtime, model, first.pid), timeout_s=30, what="another worker")
    wait_until(lambda: runtime.predict(model).status_code == 200, timeout_s=30, what="it serves")
    assert runtime.worker(model).mode == "forked"


def test_a_killed_shim_takes_its_worker_along(runtime: Runtime, model: str) -> None:
    """kill -9 of a shim ends its worker at once, and what the worker had started."""
    first = runtime.worker(model)
    child = runtime.ask(model, "child")
    runtime.shim(first).kill()
    wait_until(lambda: not psutil.pid_exists(first.pid), timeout_s=5, what="the worker is gone")
    wait_until(lambda: _ended(child), timeout_s=5, what="its child is gone")
    wait_until(lambda: runtime.predict(model).status_code == 200, timeout_s=30, what="another one serves")


def test_unregistering_removes_worker_and_shim(runtime: Runtime) -> None:
    """Nothing of a model is left after it was unregistered."""
    runtime.register("leaving", workers=2)
    workers = runtime.workers("leaving")
    assert len(workers) == 2
    pids = [pid for worker in workers for pid in (worker.pid, runtime.shim(worker).pid)]
    runtime.unregister("leaving")
    wait_until(lambda: all(map(_ended, pids)), timeout_s=20, what="workers and shims gone")


@pytest.mark.parametrize("kind", ["session", "daemon"])
@pytest.mark.parametrize("how", ["unregistered", "killed", "exits", "shim killed"])
def test_fault_children_in_a_session_of_their_own(runtime: Runtime, kind: str, how: str) -> None:
    """What a handler started ends with its worker, however that ends, in a session of its own or with no parent."""
    name = f"parent-{kind}-{how.replace(' ', '-')}"
    runtime.register(name)
    worker = runtime.worker(name)
    child = runtime.ask(name, kind)
    assert os.getsid(child) == child
    assert runtime.ask(name)["pid"] == worker.pid
    assert not _ended(child)
    match how:
        case "killed":
            os.kill(worker.pid, signal.SIGKILL)
        case "exits":
            runtime.predict(name, "exit 3")
        case "shim killed":
            runtime.shim(worker).kill()
    if how == "unregistered":
        runtime.unregister(name)
    wait_until(lambda: _ended(child), timeout_s=20, what="what it started is gone")
    if how != "unregistered":
        wait_until(lambda: _replaced(runtime, name, worker.pid), timeout_s=30, what="another worker")
        runtime.unregister(name)
    wait_until(lambda: not runtime.workers(name), timeout_s=20, what="the worker is gone")
    assert runtime.fork_server.is_running()
    assert not [each for each in runtime.fork_server.children() if each.status() == psutil.STATUS_ZOMBIE]


def test_the_socket_is_the_owners_alone(runtime: Runtime) -> None:
    """`runtime.sock` and the fork server's socket are 0600, and runtime.json says that the former is served."""
    assert runtime.info.control_socket
    fork_socket = (runtime.directory / "tmp").resolve() / "fork.sock"
    for path in (runtime.directory / RUNTIME_SOCKET, fork_socket):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_ISSOCK(path.stat().st_mode)


def test_everything_listens_on_loopback(runtime: Runtime) -> None:
    """The kernel's table of listening sockets has only loopback addresses for TorchServe, and at least its five."""
    java = psutil.Process(runtime.info.pid)
    listening = [c.laddr for c in java.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN]
    assert len(listening) >= 5
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_no_url_can_be_registered(runtime: Runtime) -> None:
    """TorchServe refuses an archive from a URL, on this machine or elsewhere."""
    for url in ("http://127.0.0.1:1/x.mar", f"file://{runtime.info.model_store}/inspect.mar"):
        answer = runtime.client.post(f"{runtime.info.addresses['management']}/models", params={"url": url})
        assert answer.status_code in (400, 404), answer.text


def _replaced(runtime: Runtime, name: str, pid: int) -> bool:
    return [worker.pid != pid for worker in runtime.workers(name)] == [True]


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
