"""A fake pod that loads, proves, unloads and drains on demand, as the pod contract says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from gateway.fakes import FakePod
from marway.errors import MarwayError, NotFound
from marway.records import VersionRecord
from marway.registry import Registry
from marway.wire.comparison import Comparison
from marway.wire.pods import HandlerLine, HandlerLines, LoadReport, ModelStatus
from marway.wire.problems import CONTENT_TYPE, problem_of


@dataclass
class AdminPod(FakePod):
    """A pod whose loads go well, until a test says otherwise.

    Attributes:
        registry: What it loads from.
        asked: Loads, unloads and drains that it got, in order.
        headers: The request headers of each.
        differences: What it says of golden answers.
        refusal: Answered to loads in their place.
        comparison: Answered to comparisons; None stands for one in which nothing differs.
        compared: Comparisons that it got, in order.
        while_comparing: Called during a comparison.
        too_old: Whether it knows no comparisons.
        lines: What the handlers of all its versions wrote.
    """

    registry: Registry | None = None
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    differences: tuple[str, ...] = ()
    refusal: MarwayError | None = None
    comparison: Comparison | None = None
    compared: list[str] = field(default_factory=list)
    while_comparing: Callable[[], object] | None = None
    too_old: bool = False
    lines: tuple[HandlerLine, ...] = ()

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/models/{name}/{version}/load", self._load)
        app.router.add_post("/models/{name}/{version}/compare", self._compare)
        app.router.add_post("/models/{name}/{version}/unload", self._unload)
        app.router.add_get("/models/{name}/{version}/log", self._log)
        app.router.add_post("/drain", self._drain)
        app.router.add_delete("/drain", self._drain)

    def _record(self, request: web.Request) -> VersionRecord:
        self.asked.append(f"{request.method} {request.path_qs}")
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        assert self.registry is not None
        return self.registry.record(request.match_info["name"], request.match_info["version"])

    def _without(self, record: VersionRecord) -> tuple[ModelStatus, ...]:
        return tuple(model for model in self.models if model.id != record.id)

    async def _load(self, request: web.Request) -> web.Response:
        record = self._record(request)
        if self.refusal is not None:
            problem, headers = problem_of(self.refusal)
            return web.Response(body=problem.body(), status=problem.status, content_type=CONTENT_TYPE, headers=headers)
        prove = request.query.get("prove") == "true"
        status = ModelStatus(id=record.id, name=record.name, version=record.version, state="ready", workers=1)
        self.models = (*self._without(record), status)
        self.tell(models=(status,))
        report = LoadReport(
            model=status,
            golden_sha256=record.golden_sha256 if prove else None,
            examples=3 if prove else 0,
            differences=self.differences if prove else (),
            duration_s=0.25,
            server=self.backend,
            server_versions={"torchserve": "0.12.0", "torch": "2.12"},
        )
        return web.Response(text=report.model_dump_json(), content_type="application/json")

    async def _compare(self, request: web.Request) -> web.Response:
        if self.too_old:
            problem, _ = problem_of(NotFound(f"there is no POST {request.path}"))
            return web.Response(body=problem.body(), status=problem.status, content_type=CONTENT_TYPE)
        self.compared.append(f"{request.method} {request.path_qs}")
        if self.while_comparing is not None:
            self.while_comparing()
        version, base = request.match_info["version"], request.query.get("base")
        found = self.comparison or Comparison(
            version=version, base=base, inputs_of=base or version, inputs=3, compared=3, equal=3, both_answered=3
        )
        return web.Response(text=found.model_dump_json(), content_type="application/json")

    async def _unload(self, request: web.Request) -> web.Response:
        record = self._record(request)
        self.models = self._without(record)
        status = ModelStatus(id=record.id, name=record.name, version=record.version, state="absent")
        self.tell(removed=(record.id,))
        return web.Response(text=status.model_dump_json(), content_type="application/json")

    async def _log(self, request: web.Request) -> web.Response:
        wanted = request.query.get("request")
        found = tuple(line for line in self.lines if wanted is None or wanted in line.request_ids)
        lines = HandlerLines(lines=found[-int(request.query["lines"]) :])
        return web.Response(text=lines.model_dump_json(), content_type="application/json")

    async def _drain(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        self.draining = request.method == "POST"
        self.tell()
        return web.Response(text=self.status.model_dump_json(), content_type="application/json")
