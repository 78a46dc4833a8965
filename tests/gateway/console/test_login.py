"""Signing in to the console: who gets in, and which requests a cookie may make."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from gateway.admin_pod import AdminPod
from gateway.fakes import Running, running
from marway.errors import Overloaded
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway_gateway.console.login import Guesses
from support.registry import publish

PAGE = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
MARK = {"x-marway-console": "1"}
TOKEN = "a-token+of/ours=="


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    tmp_path = tmp_path_factory.mktemp("login")
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish(registry, tmp_path, "intent", "1.0")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"ana: {TOKEN}\n")
    tokens.chmod(0o600)
    pod = AdminPod("a", registry=registry)
    await pod.start()
    try:
        async with running(pod, registry=registry, admin_tokens_file=tokens, duties=False) as gateway:
            yield gateway
    finally:
        await pod.stop()


@pytest.fixture
def guarded(served: Running) -> Running:
    """A gateway whose admin port wants a token, and a client without a cookie."""
    served.admin.cookies.clear()
    return served


async def signed_in(gateway: Running, **more: str) -> httpx.Response:
    return await gateway.admin.post("/console/login", json={"token": TOKEN, **more}, headers=MARK)


async def test_nothing_of_models_is_open(guarded: Running) -> None:
    """Pages lead to where to sign in, relative to wherever a proxy has them; what is no page is refused as ever."""
    admin = guarded.admin
    for path, to in (
        ("/", "console/login"),
        ("/console/models", "../console/login?next=console%2Fmodels"),
        ("/console/models/intent?versions=all", "../../console/login?next=console%2Fmodels%2Fintent%3Fversions%3Dall"),
        ("/console/nothing", "../console/login?next=console%2Fnothing"),
    ):
        answer = await admin.get(path, headers=PAGE)
        assert (answer.status_code, answer.headers["location"], answer.content) == (303, to, b"")
    assert (await admin.get("/console/models")).status_code == 401
    assert (await admin.get("/models", headers=PAGE)).status_code == 401
    assert (await admin.get("/")).json()["status"] == "alive"  # says what the port is, to programs
    page = await admin.get("/console/login", headers=PAGE)
    assert (page.status_code, "intent" in page.text) == (200, False)
    assert (await admin.get("/console/static/console.js")).status_code == 200


async def test_a_cookie_is_the_token(guarded: Running) -> None:
    """Whoever signs in sees pages and is named in the history; the cookie is kept from scripts and other sites."""
    admin = guarded.admin
    answer = await signed_in(guarded, path="/ml/")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["set-cookie"].endswith("; HttpOnly; Max-Age=2592000; Path=/ml/; SameSite=strict")
    secure = await admin.post("/console/login", json={"token": TOKEN}, headers=MARK | {"x-forwarded-proto": "https"})
    assert secure.headers["set-cookie"].endswith("; Secure")
    admin.cookies.clear()
    await signed_in(guarded)
    page = await admin.get("/console/models", headers=PAGE)
    assert (page.status_code, "intent" in page.text, "ana" in page.text) == (200, True, True)
    moved = await admin.put("/models/intent/labels/STG", json={"version": "1.0"}, headers=MARK)
    assert (moved.status_code, moved.json()["by"]) == (200, "ana")
    out = await admin.post("/console/logout?path=/", headers=MARK)
    assert (out.status_code, "Max-Age=0" in out.headers["set-cookie"]) == (204, True)
    assert (await admin.get("/", headers=PAGE)).status_code == 303


FORGED = {
    "without the header": {},
    "with another header": {"x-marway-console": "yes"},
    "from another port": MARK | {"origin": "http://127.0.0.1:9"},
    "from another site": MARK | {"origin": "https://evil.example"},
    "from a sandboxed page": MARK | {"origin": "null"},
    "of another port, as the browser says": MARK | {"sec-fetch-site": "same-site"},
    "as a form": {"content-type": "application/x-www-form-urlencoded"},
    "as a form that looks like JSON": {"content-type": "text/plain"},
}


async def test_forged_requests(guarded: Running) -> None:
    """With somebody's cookie, what their browser may be made to send changes nothing."""
    await signed_in(guarded)
    body = b'{"version": "1.0", "force": true}'
    for how, sent in FORGED.items():
        headers = {"content-type": "application/json"} | sent
        answer = await guarded.admin.put("/models/intent/labels/FORGED", content=body, headers=headers)
        assert answer.status_code == (415 if "content-type" in sent else 403), how
        without_body = {name: value for name, value in sent.items() if name != "content-type"}
        assert (await guarded.admin.post("/pods/a/drain", headers=without_body)).status_code == 403, how
    assert "FORGED" not in (await guarded.admin.get("/models/intent")).json()["labels"]


async def test_programs_need_no_mark(guarded: Running) -> None:
    """A token in `Authorization` works as ever, also beside somebody's cookie, which then does not count."""
    await signed_in(guarded)
    guarded.admin.cookies.clear()
    for cookie in ({}, {"cookie": "marway_console=wrong"}):
        sent = {"authorization": f"Bearer {TOKEN}", **cookie}
        answer = await guarded.admin.put("/models/intent/labels/STG", json={"version": "1.0"}, headers=sent)
        assert answer.status_code == 200, answer.text


async def test_wrong_tokens(guarded: Running) -> None:
    """A wrong token, a cookie with one, and a login that no page sent are refused; guesses are bounded."""
    admin = guarded.admin
    assert (await admin.post("/console/login", json={"token": TOKEN})).status_code == 403
    assert (await admin.post("/console/login", data={"token": TOKEN}, headers=MARK)).status_code == 415
    wrong_path = await admin.post("/console/login", json={"token": TOKEN, "path": "/; Domain=x"}, headers=MARK)
    assert wrong_path.status_code == 400
    answers = [await admin.post("/console/login", json={"token": "wrong"}, headers=MARK) for _ in range(11)]
    assert [each.status_code for each in answers] == [401] * 10 + [429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert (await admin.get("/console/models", headers={"cookie": "marway_console=wrong"})).status_code == 401


async def test_guesses_are_forgotten() -> None:
    """Ten wrong tokens in a minute are too many; a minute later there are ten more, and others are not held up."""
    now = 0.0
    guesses = Guesses(lambda: now)
    for _ in range(10):
        guesses.check("a")
        guesses.wrong("a")
    with pytest.raises(Overloaded):
        guesses.check("a")
    guesses.check("b")
    now = 60.0
    guesses.check("a")
    guesses.wrong("a")
    guesses.check("a")
    for number in range(2000):
        guesses.wrong(str(number))
    assert len(guesses._wrong) == 1024
