"""Callers of one model, at a steady rate: what they are answered, by which version, and whether that is right."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp
import release_zoo as zoo

_TIMEOUT_S = 30
_LOOK_S = 0.25
_FEEDBACK_S = 1.0
_AT_ONCE = 64


class Callers:
    """Ask a model's PROD; know what its base answers to each input, asked once before."""

    def __init__(self, gateway: str, admin: str, model: str) -> None:
        self._gateway, self._admin, self._model = gateway, admin, model
        self._inputs = zoo.inputs(model)
        self._tell = model.endswith("-truth")
        self._expected: dict[int, Any] = {}
        self._told: list[dict[str, Any]] = []
        self._candidate = ""
        self._place = 0
        self.calls = self.touched = self.of_candidate = 0

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=_AT_ONCE))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @contextlib.asynccontextmanager
    async def asking(self, rate: int, candidate: str) -> AsyncIterator[None]:
        """Ask so many times a second until the context ends, and know this version's answers from the base's."""
        self._candidate = candidate
        await self._learn()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask_all(group, rate))]
            if self._tell:
                tasks.append(group.create_task(self._feed_back()))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    async def followed(self, candidate: str, longest_s: float) -> tuple[float, dict[str, Any]]:
        """Wait until a rollout of this version has begun, count from then on, and wait until it has ended or is paused.

        Returns:
            How many seconds that was, and its status.
        """
        url = f"{self._admin}/models/{self._model}/labels/PROD/rollout"
        begun: float | None = None
        while True:
            async with self._session.get(url) as answer:
                found: dict[str, Any] = await answer.json() if answer.status == 200 else {}
            now = time.monotonic()
            if found.get("candidate") == candidate:
                if begun is None:
                    begun = now
                    self.calls = self.touched = self.of_candidate = 0
                if found["state"] != "running" or now - begun > longest_s:
                    return now - begun, found
            await asyncio.sleep(_LOOK_S)

    async def _learn(self) -> None:
        """Ask the base itself once for each input, eight at a time."""
        if self._expected:
            return
        waiting = iter(range(len(self._inputs)))

        async def some() -> None:
            for at in waiting:
                status, _, body = await self._ask(at, zoo.BASE)
                if status != 200:
                    raise AssertionError(f"the base of {self._model} answers {status}: {body[:300]!r}")
                self._expected[at] = _decided(body)

        await asyncio.gather(*(some() for _ in range(8)))

    async def _ask_all(self, group: asyncio.TaskGroup, rate: int) -> None:
        due = time.monotonic()
        running: set[asyncio.Task[None]] = set()
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + 1 / rate, time.monotonic() - 1)
            if len(running) < _AT_ONCE:
                task = group.create_task(self._one(self._place % len(self._inputs)))
                running.add(task)
                task.add_done_callback(running.discard)
            self._place += 1

    async def _one(self, at: int) -> None:
        try:
            status, headers, body = await self._ask(at, "PROD")
        except (aiohttp.ClientError, TimeoutError):
            status, headers, body = 0, {}, b""
        self.calls += 1
        # Errors need not say their version, but do say the side; after a promotion there are no sides.
        by = headers.get("x-marway-traffic") == "candidate" or headers.get("x-model-version") == self._candidate
        if by:
            self.of_candidate += 1
            self.touched += status != 200 or _decided(body) != self._expected[at]
        if self._tell and status == 200:
            told = {"prediction_id": headers["x-prediction-id"], "truth": self._inputs[at].truth, "source": "bench"}
            self._told.append(told)

    async def _ask(self, at: int, which: str) -> tuple[int, Any, bytes]:
        sent = self._inputs[at]
        url = f"{self._gateway}/predict/{self._model}/{which}"
        async with self._session.post(url, data=sent.body, headers={"content-type": sent.content_type}) as answer:
            return answer.status, answer.headers, await answer.read()

    async def _feed_back(self) -> None:
        while True:
            await asyncio.sleep(_FEEDBACK_S)
            told, self._told = self._told, []
            if told:
                async with self._session.post(f"{self._gateway}/feedback", json=told) as answer:
                    if answer.status != 202:
                        raise AssertionError(f"feedback: {answer.status} {(await answer.read())[:300]!r}")


def _decided(body: bytes) -> Any:
    """Return the decision and the shape of an answer; None where it has none."""
    try:
        answer = json.loads(body)
        shape = [(name, type(value).__name__) for name, value in sorted(answer.items()) if value == value]
        return answer["label"], shape
    except (ValueError, KeyError, AttributeError):
        return None
