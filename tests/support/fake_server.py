"""A model server in this process, with TorchServe's hazards: what it would do to callers it notes as a violation.

For faults and interleavings that a real one cannot be made to show at a moment of choice, and for loads by the hundred.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, LoadFailed, MarwayError, RuntimeDown
from marway.wire.envelope import Answer, Row
from marway.wire.runtime import DeviceMemory
from marway_sidecar.backends.base import (
    Description,
    NotLoaded,
    ServedModel,
    ServerInfo,
    ServerStatus,
    WorkerDied,
    WorkerStatus,
)

__all__ = ["MIB", "FakeServer"]

MIB = 1024 * 1024


@dataclass
class _Held:
    version: str
    workers: int
    worker_bytes: int
    shared_bytes: int = 0
    device_bytes: int = 0
    devices: list[int] = field(default_factory=list)
    in_flight: int = 0


def limited(memory_limit_bytes: int) -> ServerInfo:
    """What is known of a model server that may take so much memory."""
    return ServerInfo("fake", memory_limit_bytes=memory_limit_bytes)


@dataclass
class FakeServer:
    """A model server whose loads and calls end when the test says so.

    Attributes:
        worker_bytes: Memory of one worker, unless `sizes` has the version's name.
        shared: Memory that the workers of a version share, by its name, which stays when it has none.
        gpus: Memory of each GPU; a worker goes to the one with most of it free.
        on_gpu: What a worker takes of it, by its version's name; others take none.
        load_s, call_s: How long a load and a call take, in seconds; None until `go` and `answer` are set.
        failures: What the next load of a name raises.
        calls: The value of each row, by call.
        poison, deadly: A value that makes its whole call fail, or kills its worker.
        history: Every operation, in the order they began.
        violations: What TorchServe would have punished: two operations on one version at once, work in flight when
            workers went, more calls than workers.
        calls_per_worker: How many calls one worker takes at once.
        peak_bytes: The most memory that all workers took at once.
    """

    worker_bytes: int = 10 * MIB
    load_s: float | None = 0.0
    call_s: float | None = 0.0
    base_bytes: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)
    gpus: list[int] = field(default_factory=list)
    on_gpu: dict[str, int] = field(default_factory=dict)
    failures: dict[str, MarwayError] = field(default_factory=dict)
    held: dict[str, _Held] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    peak_bytes: int = 0
    peak_calls: int = 0
    down: bool = False
    batches: bool = True
    calls_per_worker: int = 1
    serves: frozenset[str] = frozenset({"torchserve"})
    info: ServerInfo = field(default_factory=lambda: ServerInfo("fake"))
    calls: list[list[str]] = field(default_factory=list)
    poison: str | None = None
    deadly: str | None = None

    def __post_init__(self) -> None:
        self.go = asyncio.Event()
        self.loading = asyncio.Event()
        self.answer = asyncio.Event()
        self.calling = asyncio.Event()
        self.scalable = asyncio.Event()
        self.scalable.set()
        self._under_way: set[str] = set()

    @property
    def loads(self) -> int:
        """How many loads began."""
        return sum(line.startswith("load ") for line in self.history)

    @property
    def bytes(self) -> int:
        """Memory of all workers now."""
        return sum(held.workers * held.worker_bytes + held.shared_bytes for held in self.held.values())

    async def load(self, model: ServedModel) -> Description:
        with self._operation("load", model):
            self._answers()
            if model.server_name in self.held:
                return self._described(model)
            self._put(model, model.workers)  # memory is taken while it starts
            self.loading.set()
            try:
                await self._pause(self.load_s, self.go)
                if (failure := self.failures.get(model.name)) is not None:
                    raise failure
            except BaseException:
                self.held.pop(model.server_name, None)
                raise
            self._answers()
            if model.server_name not in self.held:
                raise LoadFailed(f"{model.name} was lost during its load")
            return self._described(model)

    async def unload(self, model: ServedModel) -> None:
        with self._operation("unload", model):
            self._answers()
            held = self.held.get(model.server_name)
            if held is None:
                return
            if held.version != model.version:
                self.violations.append(f"unload of another version of {model.server_name}")
            self._takes_workers(model, held)
            await asyncio.sleep(0)
            self.held.pop(model.server_name, None)

    async def scale(self, model: ServedModel, workers: int) -> Description:
        with self._operation(f"scale {workers}", model):
            self._answers()
            held = self.held.get(model.server_name)
            if held is None:
                raise LoadFailed(f"{model.name} is forgotten")
            if workers < held.workers:
                self._takes_workers(model, held)
            held.workers = workers
            self._place(held)
            self._note_memory()
            await self.scalable.wait()
            await asyncio.sleep(0)
            return self._described(model)

    async def describe(self, model: ServedModel) -> Description | None:
        self._answers()
        return self._described(model) if model.server_name in self.held else None

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        self._answers()
        held = self.held.get(model.server_name)
        if held is None:
            raise NotLoaded(f"{model.name} is not here")
        values = [row.parts[0].value.decode() for row in rows]
        self.calls.append(values)
        held.in_flight += 1
        self.peak_calls = max(self.peak_calls, held.in_flight)
        if held.in_flight > held.workers * self.calls_per_worker:
            self.violations.append(f"{held.in_flight} calls for {held.workers} workers of {model.name}")
        self.calling.set()
        try:
            async with asyncio.timeout(max(0.0, deadline.left_s())):
                await self._pause(self.call_s, self.answer)
        except TimeoutError as exc:
            raise DeadlineExceeded("too slow") from exc
        finally:
            held.in_flight -= 1
        self._answers()
        if self.deadly in values:
            raise WorkerDied(f"{self.deadly} killed its worker")
        if self.poison in values:
            return [Answer(500, f"{self.poison} was among {len(rows)}".encode(), "error") for _ in rows]
        return [Answer(200, model.server_name.encode(), "text", headers={"value": value}) for value in values]

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        for _ in range(3):
            (answer,) = await self.predict(model, [row], deadline)
            yield answer

    async def status(self) -> ServerStatus:
        self._answers()
        await asyncio.sleep(0)
        workers = tuple(
            WorkerStatus(
                pid,
                name,
                "forked",
                "",
                held.worker_bytes,
                device=held.devices[pid] if held.devices else None,
                device_bytes=held.device_bytes if self.gpus else None,
            )
            for name, held in self.held.items()
            for pid in range(held.workers)
        )
        devices = tuple(
            DeviceMemory(index=index, total_bytes=total, used_bytes=total - self._free(index))
            for index, total in enumerate(self.gpus)
        )
        weights = {name: held.shared_bytes for name, held in self.held.items() if held.shared_bytes}
        return ServerStatus(frozenset(self.held), workers, self.base_bytes, weights=weights, devices=devices)

    async def is_same(self, *, timeout_s: float) -> bool:
        self._answers()
        return True

    async def aclose(self) -> None:
        return

    def grow(self, name: str, worker_bytes: int) -> None:
        """Let the workers of a version take more memory."""
        self.held[name].worker_bytes = worker_bytes

    def lose(self, name: str) -> None:
        """Forget a version, as TorchServe does when it is restarted under its runtime."""
        self.held.pop(name, None)

    def leave_behind(self, name: str) -> None:
        """Have a version that nobody here loaded."""
        self.held[name] = _Held("0.9", 1, self.worker_bytes)

    def _put(self, model: ServedModel, workers: int) -> None:
        size = self.sizes.get(model.name, self.worker_bytes)
        shared, on_gpu = self.shared.get(model.name, 0), self.on_gpu.get(model.name, 0)
        self.held[model.server_name] = held = _Held(model.version, workers, size, shared, on_gpu)
        self._place(held)
        self._note_memory()

    def _free(self, device: int) -> int:
        return self.gpus[device] - sum(held.devices.count(device) * held.device_bytes for held in self.held.values())

    def _place(self, held: _Held) -> None:
        """Give each worker a GPU, where it uses one."""
        del held.devices[held.workers :]
        while held.device_bytes and len(held.devices) < held.workers:
            held.devices.append(max(range(len(self.gpus)), key=self._free))
            if self._free(held.devices[-1]) < 0:
                self.violations.append("out of memory on a GPU")

    def _note_memory(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self.bytes)

    def _takes_workers(self, model: ServedModel, held: _Held) -> None:
        if held.in_flight:
            self.violations.append(f"{held.in_flight} callers of {model.name} would hang for ever")

    def _described(self, model: ServedModel) -> Description:
        held = self.held[model.server_name]
        return Description(held.version, held.workers, held.workers, self.calls_per_worker)

    def _answers(self) -> None:
        if self.down:
            raise RuntimeDown("the fake server is down")

    async def _pause(self, seconds: float | None, until: asyncio.Event) -> None:
        if seconds is None:
            await until.wait()
        else:
            await asyncio.sleep(seconds)

    @contextlib.contextmanager
    def _operation(self, what: str, model: ServedModel) -> Iterator[None]:
        self.history.append(f"{what} {model.name}")
        if model.server_name in self._under_way:
            self.violations.append(f"{what} of {model.name} during another operation")
        self._under_way.add(model.server_name)
        try:
            yield
        finally:
            self._under_way.discard(model.server_name)
