from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from support.stub_pod import StubPod, stub_pod


@pytest.fixture
def stub_pods() -> Iterator[Callable[[], StubPod]]:
    """Starts servers that answer as a test tells them."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(stub_pod())
