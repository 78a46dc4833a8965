from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod
from marway.objects import DirectoryStore
from marway.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(DirectoryStore(tmp_path / "registry"))


@pytest.fixture
async def make_pod() -> AsyncIterator[Callable[..., object]]:
    """Starts fake pods and stops them at the end."""
    started: list[FakePod] = []

    async def make(name: str = "a", **fields: object) -> FakePod:
        pod = FakePod(name, **fields)  # type: ignore[arg-type]
        await pod.start()
        started.append(pod)
        return pod

    yield make
    for pod in started:
        await pod.stop()
