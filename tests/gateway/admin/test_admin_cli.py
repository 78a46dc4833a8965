"""The verbs that go through a gateway's admin port."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from gateway.admin_pod import AdminPod
from gateway.fakes import Running, free_port, running
from marway.registry import Registry
from marway.wire.comparison import Comparison, FieldChange
from support.in_process import Marway, Said
from support.registry import publish

Run = Callable[..., Awaitable[Said]]


@pytest.fixture
async def gateway(registry: Registry, tmp_path: Path) -> AsyncIterator[tuple[Running, AdminPod]]:
    """A gateway with one pod, intent 1.0 at PROD and 1.1."""
    publish(registry, tmp_path, version="1.0")
    publish(registry, tmp_path, version="1.1", label=None, golden=b"{}")
    pod = AdminPod("a", registry=registry)
    await pod.start()
    try:
        async with running(pod, registry=registry) as started:
            while (await started.client.get("/readyz")).status_code != 200:
                pass
            yield started, pod
    finally:
        await pod.stop()


@pytest.fixture
def run(
    gateway: tuple[Running, AdminPod],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """The command, in an empty directory, with the gateway's admin port in its environment."""
    archiver = EntryPoint("archiver", "marway_archiver.cli:register", "marway.verbs")
    monkeypatch.setattr("marway_ops.cli.main.entry_points", lambda group: [archiver])
    monkeypatch.setenv("MARWAY_GATEWAY_ADMIN_URL", gateway[0].addresses.admin)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    command = Marway(monkeypatch, capsys)

    async def call(*arguments: str) -> Said:
        return await asyncio.to_thread(command, *arguments)

    return call


def document(said: Said) -> Any:
    assert said.code == 0, said.err
    return json.loads(said.out)


async def test_pods(run: Run) -> None:
    """`pods` shows each pod and how it is; with --json it prints a list, and for a version where that is."""
    shown = (await run("pods")).out
    assert "ready" in shown
    assert "torchserve" in shown
    (pod,) = document(await run("pods", "--json"))
    assert (pod["name"], pod["eligible"]) == ("a", True)
    assert document(await run("pods", "intent/1.1", "--json"))["pods"][0]["model"] is None
    assert "1.1" not in (await run("pods", "intent")).err


async def test_load_and_unload(run: Run, gateway: tuple[Running, AdminPod]) -> None:
    """`load` says where and how long, with --prove what was proved; `unload` says where it is gone."""
    assert (await run("load", "intent/1.1")).out == "intent 1.1 is loaded on a, in 0.25 s\n"
    said = await run("load", "intent/1.1", "--pod", "a", "--prove")
    assert said.out == "intent 1.1 is loaded on a, in 0.25 s, and gave its 3 golden answers\n"
    assert document(await run("load", "intent", "--json"))["version"] == "1.0"
    assert (await run("unload", "intent/1.1")).out == "intent 1.1 is not loaded on a\n"
    said = await run("load", "intent", "--pod", "z")
    assert (said.code, said.err) == (1, "marway: there is no pod 'z': there are a\n")


async def test_release_and_rollback(run: Run, gateway: tuple[Running, AdminPod], registry: Registry) -> None:
    """`release` proves and moves the label; a difference is shown and exits with 1; `rollback` goes through too."""
    _, pod = gateway
    pod.differences = ("example 2: at label: 'timer' was expected, 'alarm' came",)
    said = await run("release", "intent", "1.1")
    assert (said.code, said.out) == (1, "")
    assert "example 2: at label: 'timer' was expected, 'alarm' came; PROD stays at 1.0" in said.err
    assert len(said.err.splitlines()) == 1
    pod.differences = ()
    said = await run("release", "intent", "1.1", "--note", "better")
    assert said.out.splitlines() == [
        "intent PROD → 1.1 (was 1.0); a gave its 3 golden answers",
        "compared 1.1 with 1.0 by pod a, 3 golden inputs of 1.0:",
        "  fields   the same, of the same types",
        "  answers  3 of 3 equal",
        "  errors   0, before 0",
        "  finite   all",
    ]
    entry = document(await run("rollback", "intent", "--json"))
    assert (entry["kind"], entry["to"]) == ("rollback", "1.0")
    assert "model" not in entry  # the same document as without a gateway
    assert (await run("rollback", "intent", "--to", "1.1")).out == "intent PROD → 1.1 (was 1.0)\n"
    assert "never at 1.2" in (await run("rollback", "intent", "--to", "1.2", "--registry", registry.url)).err
    entry = document(await run("release", "intent", "1.1", "--label", "STG", "--force", "--json"))
    assert (entry["forced"], entry["label"]) == (True, "STG")
    assert "@" in registry.state("intent").history[-1].by


async def test_a_refused_release_shows_why(run: Run, gateway: tuple[Running, AdminPod], registry: Registry) -> None:
    """A version that is not like the one before it is refused: what differs on stdout, one line on stderr, status 1."""
    _, pod = gateway
    change = FieldChange(field="score", change="renamed", before="number", after="number", to="confi\x1bdence")
    pod.comparison = Comparison(
        version="1.1", base="1.0", inputs_of="1.0", inputs=3, compared=3, equal=1, both_answered=3, fields=(change,),
        differences=("example 1: 'score' was expected and is missing",), p50_s=3.0, base_p50_s=0.0015,
        refused=("its answers have other fields or types: score is now confidence",),
    )  # fmt: skip
    said = await run("release", "intent", "1.1")
    assert said.code == 1
    assert "  fields   score is now confi\\x1bdence\n  answers  1 of 3 equal (example 1: 'score' was" in said.out
    assert "  p50      3.00 s, before 1.5 ms: SLOWER\n" in said.out
    assert said.err == (
        "marway: intent 1.1 may not take the place of 1.0: its answers have other fields or types: score is now "
        "confidence; PROD stays at 1.0; if that is meant, release it with --force\n"
    )
    said = await run("release", "intent", "1.1", "--json")
    expected = {**pod.comparison.model_dump(mode="json"), "pod": "a"}
    assert (said.code, json.loads(said.out)["comparison"]) == (1, expected)
    assert registry.state("intent").labels == {"PROD": "1.0"}
    entry = document(await run("release", "intent", "1.1", "--force", "--json"))
    assert (entry["forced"], entry["comparison"]["not_compared"]) == (True, "the release was forced")


async def test_serving_and_pin(run: Run, registry: Registry) -> None:
    """`serving` shows and changes settings through the gateway as it does in the registry; `pin` is short for one."""
    said = await run("serving", "intent", "--set", "max_batch_rows=8", "--set", "max_workers=null")
    assert "8 (set for all)" in said.out
    assert document(await run("serving", "intent", "--json"))["overrides"] == {
        "*": {"max_batch_rows": 8, "max_workers": None}
    }
    assert (await run("pin", "intent")).out == "intent 1.0 is pinned\n"
    shown = document(await run("serving", "intent", "--version", "1.0", "--json"))
    assert (list(shown["serving"]), shown["serving"]["1.0"]["pinned"]) == (["1.0"], True)
    assert (await run("pin", "intent/1.0", "--off")).out == "intent 1.0 is no longer pinned\n"
    assert document(await run("serving", "intent", "--json", "--registry", registry.url))["name"] == "intent"
    assert "has no version '9'" in (await run("serving", "intent", "--version", "9")).err


async def test_drain(run: Run, gateway: tuple[Running, AdminPod]) -> None:
    """`drain` takes a pod out and --undo brings it back."""
    _, pod = gateway
    assert (await run("drain", "a")).out == "a drains: it takes no more requests\n"
    assert pod.draining
    assert document(await run("drain", "a", "--undo", "--json"))["eligible"] is True
    assert (await run("drain", "a/b")).err == "marway: 'a/b' cannot be a pod's name\n"


async def test_delete(run: Run, registry: Registry) -> None:
    """`delete` refuses what a label points at unless it is forced, through the gateway and in the registry."""
    for where in (("--registry", registry.url), ()):
        said = await run("delete", "intent", "1.0", *where)
        assert (said.code, said.out) == (1, "")
        assert "intent 1.0 is PROD: move the label" in said.err
    assert (await run("delete", "intent", "1.1", "--note", "leaks")).out == "intent 1.1 is deleted\n"
    entry = document(await run("delete", "intent", "1.0", "--force", "--json", "--registry", registry.url))
    assert (entry["kind"], entry["from"], entry["forced"]) == ("tombstone", "1.0", True)
    assert registry.state("intent").labels == {}


async def test_delete_a_model(run: Run, registry: Registry) -> None:
    """`delete MODEL` wants a word where nobody can be asked, and is refused while labels point at versions."""
    said = await run("delete", "intent")
    assert (said.code, said.err) == (
        1,
        "marway: this deletes all versions of intent for good: say --yes where nobody can be asked\n",
    )
    for where in (("--registry", registry.url), ()):
        assert "intent is served (PROD → 1.0)" in (await run("delete", "intent", "--yes", *where)).err
    assert (await run("delete", "intent", "--yes", "--force")).out == "intent is deleted (1.0, 1.1)\n"
    assert document(await run("delete", "intent", "--yes", "--json", "--registry", registry.url)) == []


async def test_mistakes(run: Run, gateway: tuple[Running, AdminPod], registry: Registry) -> None:
    """A wrong URL is one clear line: the public port's, nobody's, and no URL at all; so are two places at once."""
    started, _ = gateway
    for arguments, says in (
        (
            ("pods", "--gateway", started.addresses.gateway),
            "is not the admin port of a gateway (there is no GET /pods)",
        ),
        (("release", "intent", "1.1", "--gateway", started.addresses.gateway), "give the admin port's URL"),
        (("pods", "--gateway", f"http://127.0.0.1:{free_port()}"), "no gateway answers at"),
        (("pods", "--gateway", "localhost:8001"), "is no URL"),
        (("release", "intent", "1.1", "--gateway", "http://x", "--registry", registry.url), "not both"),
        (("delete", "intent", "PROD"), "looks like a label"),
    ):
        said = await run(*arguments)
        assert (said.code, said.out) == (1, ""), arguments
        assert says in said.err, said.err
        assert len(said.err.splitlines()) == 1
    assert (await run("drain")).code == 2


async def test_tokens(run: Run, monkeypatch: pytest.MonkeyPatch, registry: Registry, tmp_path: Path) -> None:
    """A token comes from the flag, a file or the environment; without one, and with a wrong one, it is said so."""
    file = tmp_path / "tokens"
    file.write_text("ana: s3cret\n")
    file.chmod(0o600)
    async with running(registry=registry, admin_tokens_file=file, predict_tokens_file=file) as guarded:
        predict = ("predict", "intent", "hello", "--gateway", guarded.addresses.gateway)
        assert "this needs a token" in (await run(*predict)).err
        assert "no pods are configured" in (await run(*predict, "--token-file", str(file))).err
        where = ("pods", "--json", "--gateway", guarded.addresses.admin)
        assert "wants a token: give --token-file, or set MARWAY_TOKEN" in (await run(*where)).err
        assert "does not know this token" in (await run(*where, "--token", "wrong")).err
        assert document(await run(*where, "--token", "s3cret")) == []
        assert document(await run(*where, "--token-file", str(file))) == []
        monkeypatch.setenv("MARWAY_TOKEN_FILE", str(file))
        assert document(await run(*where)) == []
        monkeypatch.setenv("MARWAY_TOKEN", "wrong")
        assert (await run(*where)).code == 1
        monkeypatch.delenv("MARWAY_TOKEN")
        monkeypatch.setenv("MARWAY_TOKEN_FILE", str(tmp_path / "missing"))
        assert "cannot read the token file" in (await run(*where)).err


async def test_publish_with_a_label(
    run: Run, gateway: tuple[Running, AdminPod], registry: Registry, tmp_path: Path
) -> None:
    """`publish --label` is proved through the gateway; without one a label that is elsewhere stays, unless forced."""
    handler = tmp_path / "handler.py"
    handler.write_text("def handle(data, context):\n    return [1 for _ in data or ()]\n")
    for version in ("2.0", "3.0", "4.0"):
        archive = ("pack", "--model-name", "intent", "--version", version, "--handler", str(handler))
        (tmp_path / version).mkdir()
        assert (await run(*archive, "--export-path", str(tmp_path / version))).code == 0
    publish_ = ("publish", "--registry", registry.url, "--label", "PROD")
    assert (await run(*publish_, str(tmp_path / "2.0" / "intent.mar"))).code == 0
    assert gateway[1].asked == ["POST /models/intent/2.0/load?prove=true"]
    assert registry.state("intent").history[-1].forced is False
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MARWAY_GATEWAY_ADMIN_URL")
        said = await run(*publish_, str(tmp_path / "3.0" / "intent.mar"))
        assert said.code == 1
        assert "no pod has loaded intent 3.0" in said.err
        assert "PROD stays at 2.0" in said.err
        assert (await run(*publish_, "--force", str(tmp_path / "4.0" / "intent.mar"))).code == 0
    assert registry.state("intent").labels == {"PROD": "4.0"}
    assert registry.state("intent").history[-1].forced is True
    assert registry.versions("intent") == ("1.0", "1.1", "2.0", "3.0", "4.0")
