"""The model repository extension on the admin port, over pods that note what they are asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from gateway.fakes import FakePod, Running, running
from marway.errors import LoadFailed
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.pods import LoadReport, ModelStatus, PodStatus
from marway.wire.problems import CONTENT_TYPE, problem_of
from support.registry import publish, until


@dataclass
class LoadingPod(FakePod):
    """A pod that says what models it has, and notes loads and unloads."""

    asked: list[str] = field(default_factory=list)
    models: tuple[ModelStatus, ...] = ()
    fails: bool = False

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/status", self._status)
        app.router.add_get("/watch", self._watch)
        app.router.add_post("/models/{name}/{version}/{what}", self._change)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @property
    def status(self) -> PodStatus:
        return PodStatus(name=self.name, boot_id="1", backend="torchserve", ready=True, models=self.models)

    async def _change(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if self.fails:
            problem, _ = problem_of(LoadFailed("m 1.0 cannot be loaded: no weights"))
            return web.Response(body=problem.body(), status=problem.status, content_type=CONTENT_TYPE)
        name, version = request.match_info["name"], request.match_info["version"]
        loads = request.match_info["what"] == "load"
        status = ModelStatus(
            id=f"run-{name}-{version}", name=name, version=version, state="ready" if loads else "absent"
        )
        said = LoadReport(model=status, duration_s=0.1, server="torchserve") if loads else status
        return web.Response(text=said.model_dump_json(), content_type="application/json")


@pytest.fixture
async def pods() -> AsyncIterator[list[LoadingPod]]:
    made = [LoadingPod("a"), LoadingPod("b")]
    for pod in made:
        await pod.start()
    yield made
    for pod in made:
        await pod.stop()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(DirectoryStore(tmp_path / "registry"))
    publish(made, tmp_path, "m", serving=ServingSettings(pods=2))
    publish(made, tmp_path, "m", "1.1", label="STG")
    publish(made, tmp_path, "n")
    return made


async def seen(gateway: Running, count: int) -> None:
    """Return once the gateway knows of ``count`` versions on pods."""

    async def known() -> int:
        return sum(
            len((pod["status"] or {"models": ()})["models"]) for pod in (await gateway.admin.get("/pods")).json()
        )

    async with asyncio.timeout(10):
        while await known() != count:
            await asyncio.sleep(0.01)


async def test_index(registry: Registry, pods: list[LoadingPod]) -> None:
    """Every version is listed with the best state that any pod has it in, or only those that are loaded."""
    pods[0].models = (
        ModelStatus(id="run-m-1.0", name="m", version="1.0", state="failed", failure="no weights"),
        ModelStatus(id="run-n-1.0", name="n", version="1.0", state="failed", failure="no weights"),
    )
    pods[1].models = (ModelStatus(id="run-m-1.0", name="m", version="1.0", state="ready"),)
    async with running(*pods, registry=registry) as gateway:
        await seen(gateway, 3)
        everything = await gateway.admin.post("/v2/repository/index")
        assert everything.json() == [
            {"name": "m", "version": "1.0", "state": "READY", "reason": ""},
            {"name": "m", "version": "1.1", "state": "UNAVAILABLE", "reason": ""},
            {"name": "n", "version": "1.0", "state": "UNAVAILABLE", "reason": "no weights"},
        ]
        ready = await gateway.admin.post("/v2/repository/index", json={"ready": True})
        assert ready.json() == everything.json()[:1]
        for kind in ({}, {"content-type": "application/x-www-form-urlencoded"}):  # as Triton's client and curl send it
            said = await gateway.admin.post("/v2/repository/index", content=b'{"ready": true}', headers=kind)
            assert said.json() == ready.json()
        wrong = await gateway.admin.post("/v2/repository/index", content=b"{")
        assert (wrong.status_code, wrong.json().keys()) == (400, {"error"})
        assert (await gateway.client.post("/v2/repository/index")).status_code == 404


async def test_load_and_unload(registry: Registry, pods: list[LoadingPod]) -> None:
    """A load goes to the version's own pods, an unload to all that have it; a version or label may be named."""
    async with running(*pods, registry=registry) as gateway:
        await until(lambda: all(pod.watches for pod in pods))
        loaded = await gateway.admin.post("/v2/repository/models/m/load")
        assert loaded.status_code == 200, loaded.text
        assert {**loaded.json(), "pods": sorted(loaded.json()["pods"])} == {
            "name": "m",
            "version": "1.0",
            "pods": ["a", "b"],
        }
        staged = await gateway.admin.post(
            "/v2/repository/models/m/load", json={"parameters": {"version": "STG", "config": "{}"}}
        )
        assert (staged.json()["version"], len(staged.json()["pods"])) == ("1.1", 1)
        asked = sorted(path for pod in pods for path in pod.asked)
        assert asked == ["/models/m/1.0/load", "/models/m/1.0/load", "/models/m/1.1/load"]
        pods[1].models = (ModelStatus(id="run-m-1.0", name="m", version="1.0", state="ready"),)
        pods[1].tell(models=pods[1].models)
        await seen(gateway, 1)
        unloaded = await gateway.admin.post("/v2/repository/models/m/unload")
        assert unloaded.json() == {"name": "m", "version": "1.0", "pods": ["b"]}
        assert pods[1].asked[-1] == "/models/m/1.0/unload"


async def test_what_cannot_be_loaded(registry: Registry, pods: list[LoadingPod]) -> None:
    """Unknown models, loads that fail and gateways without pods are errors in the protocol's form."""
    for pod in pods:
        pod.fails = True
    async with running(*pods, registry=registry) as gateway:
        for path, body, status, says in (
            ("nix/load", {}, 404, "there is no model"),
            ("m/unload", {"parameters": {"version": "9"}}, 404, "no version '9'"),
            ("m/load", {"parameters": {"version": "a b"}}, 400, "cannot be a version"),
            ("m/load", {}, 500, "no weights"),
        ):
            answer = await gateway.admin.post(f"/v2/repository/models/{path}", json=body)
            assert answer.status_code == status, answer.text
            assert says in answer.json()["error"]
    async with running(registry=registry) as gateway:
        answer = await gateway.admin.post("/v2/repository/models/m/load")
        assert (answer.status_code, "no pods are configured" in answer.json()["error"]) == (503, True)
