"""schemathesis over the public OpenAPI document: no 5xx, and no answer that the document does not have."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Iterator

import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.fakes import FakePod, answer, running
from gateway.handlers import echo, handling
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.settings import load_settings
from marway.wire.envelope import ROWS_CONTENT_TYPE
from marway_gateway.app import create_app
from marway_gateway.settings import GatewaySettings
from support.registry import publish

# schemathesis itself does what Hypothesis warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

EXAMPLES = 100 if os.environ.get("MARWAY_TEST_LONG") == "1" else 8
DOCUMENT = create_app(load_settings(GatewaySettings, registry=tempfile.gettempdir())).openapi()
schema = schemathesis.openapi.from_dict(DOCUMENT)
rows = handling(echo)


async def either(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Give back what came, whole or row by row."""
    return await (rows if request.headers.get("content-type") == ROWS_CONTENT_TYPE else answer)(pod, request)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway over a pod that gives back what it gets, in a thread of its own."""
    scratch = tmp_path_factory.mktemp("schemathesis")
    registry = Registry(DirectoryStore(scratch / "registry"))
    publish(registry, scratch)
    ready, stop = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        pod = FakePod("a", behave=either)
        await pod.start()
        async with running(pod, registry=registry) as gateway:
            found.append(gateway.addresses.gateway)
            ready.set()
            await asyncio.to_thread(stop.wait)
        await pod.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(30)
    yield found[0]
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_answer_is_in_the_document(case: schemathesis.Case, url: str) -> None:
    """Whatever fits the document, and whatever does not, is answered as the document says, and never with a 5xx."""
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    # A deadline of a millisecond is a 504, and rightly so; an echo is no classification and no number, which is a 500.
    impatient = "x-request-timeout-ms" in {name.lower() for name in case.headers or {}}
    if not impatient and not case.path.endswith((":classify", ":regress")):
        checks.append(not_a_server_error)
    case.call_and_validate(base_url=url, timeout=20, checks=checks)
