"""The route of the console's try-it form: the predictor as on the public port, guarded as the admin port is."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod, running
from marway.registry import Registry
from marway.wire.envelope import Answer, Row
from marway_gateway.settings import PodAddress
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer, serving
from support.registry import publish, until

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


@pytest.mark.extended  # one more gateway; test_login has all of what the cookie opens
async def test_with_the_cookie(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Who is signed in tries from the console's own page alone; the pod never sees the token."""
    file = tmp_path / "tokens"
    file.write_text("ana:one-token\n")
    file.chmod(0o600)
    pod = await make_pod("a")
    async with running(pod, registry=registry, admin_tokens_file=file) as gateway:
        cookie = {"cookie": "marway_console=one-token"}
        ours = await gateway.admin.post(PATH, content=b"hi", headers={**OURS, **cookie, "content-type": "text/plain"})
        assert (ours.status_code, ours.text) == (200, "hi")
        forged = await gateway.admin.post(PATH, json="hi", headers=cookie)
        assert (forged.status_code, forged.json()["code"]) == (403, "foreign_origin")
        assert (await gateway.admin.post(PATH, json="hi")).status_code == 401
    assert [each.body for each in pod.requests] == [b"hi"]
    assert "one-token" not in str(pod.requests[0].headers)


@pytest.mark.extended  # a real sidecar; with a fake pod the tests above show what the route does
async def test_through_a_real_pod(registry: Registry, tmp_path: Path) -> None:
    """A try from the console is loaded, answered and kept as any prediction, and found again by its id."""

    async def answered(model: ServedModel, row: Row) -> Answer:
        return Answer(200, b'{"label": "joke"}', "json")

    publish(registry, tmp_path, "music", "1.0", serving={"observe": "bodies"})
    async with (
        serving(registry, tmp_path, server=FakeServer(predict_with=answered)) as sidecar,
        running(PodAddress("pod-0", sidecar.url), registry=registry, observations_flush_s=0.1) as gateway,
    ):
        headers = {**OURS, "content-type": "text/plain"}
        answer = await gateway.admin.post("/console/try/music/PROD", content=b"tell me", headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"label": "joke"})
        await until(lambda: list(registry.store.keys("observations/model=music/")))
        told = (await gateway.admin.get(f"/observations/{answer.headers['x-prediction-id']}")).json()
    assert (told["input"]["text"], told["output"]["text"]) == ("tell me", '{"label": "joke"}')
    assert (told["why"]["pod"]["pod"], told["why"]["label"]["label"]) == ("pod-0", "PROD")
    assert told["why"]["timings"]["model_s"] > 0
