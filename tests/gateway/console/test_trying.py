"""The route of the console's try-it form: the predictor as on the public port, guarded as the admin port is."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod, running
from marway.registry import Registry
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]
OURS = {"x-marway-console": "1"}
PATH = "/console/try/intent/PROD"


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)


async def test_it_is_a_prediction_of_our_own_pages(registry: Registry, make_pod: MakePod) -> None:
    """Any body reaches the pod with its content type, without cookies, and the answer has its ids and times; what a
    page of a stranger could send is refused before a pod is asked.
    """
    pod = await make_pod("a")
    async with running(pod, registry=registry) as gateway:
        sent = {**OURS, "content-type": "image/png", "cookie": "marway_console=secret", "authorization": "Bearer x"}
        answer = await gateway.admin.post(PATH, content=b"\x89PNG", headers=sent)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-model-version"] == "1.0"
        assert answer.headers["x-prediction-id"]
        assert "total" in answer.headers["server-timing"]
        refused = await gateway.admin.post(f"{PATH}/infer", json={"inputs": [{"name": "x"}]}, headers=OURS)
        assert (refused.status_code, list(refused.json())) == (400, ["error"])  # as the Open Inference Protocol has it
        form = {"content-type": "application/x-www-form-urlencoded"}
        refused = await gateway.admin.post(PATH, content=b"a=1", headers=form)
        assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media")
        elsewhere = await gateway.admin.put("/models/intent/labels/PROD", content=b"a=1", headers={**OURS, **form})
        assert elsewhere.status_code == 415  # the header opens the try route alone
        foreign = {**OURS, "origin": "https://evil.example", "content-type": "text/plain"}
        refused = await gateway.admin.post(PATH, content=b"a", headers=foreign)
        assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
        asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        preflight = await gateway.admin.options(PATH, headers=asked)
        assert preflight.status_code >= 400
        assert "access-control-allow-origin" not in preflight.headers
    (seen,) = pod.requests
    assert (seen.body, seen.headers["content-type"]) == (b"\x89PNG", "image/png")
    assert not {"cookie", "authorization", "x-marway-console"} & {name.lower() for name in seen.headers}
