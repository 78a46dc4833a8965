"""What a person finds with a browser on each of the three ports, as a program sees it."""

from __future__ import annotations

import re

import httpx
import pytest

from marway_http.pages.routes import API_PAGE_PATHS
from support.ports import Port

PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"  # as browsers ask


async def test_what_a_port_is(port: Port) -> None:
    """`GET /` says in JSON what answers and where to look; all that it names is there."""
    async with httpx.AsyncClient(base_url=port.url) as client:
        answer = await client.get("/")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["vary"] == "Accept"
        about = answer.json()
        assert about["status"] == "alive"  # what KServe's v1 clients look at
        assert about["name"].startswith("Marway")
        for link in about["links"]:
            found = await client.get("/" + link["href"])
            assert found.status_code == 200 or (link["href"], found.json()["status"]) == ("readyz", 503), link


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (PAGE, "text/html"),
        ("text/html", "text/html"),
        ("text/html, application/json", "text/html"),
        ("text/html;q=0.5, application/json", "application/json"),
        ("text/html;q=0", "application/json"),
        ("text/html;q=much", "application/json"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("", "application/json"),
    ],
)
async def test_page_or_json(port: Port, accept: str, kind: str) -> None:
    """Who asks for HTML gets a page, with links to the same and a policy that lets no script in; HEAD as GET."""
    console = port.name == "admin" and kind == "text/html"  # to whose first page it leads
    async with httpx.AsyncClient(base_url=port.url, headers={"accept": accept}, follow_redirects=console) as client:
        answer, head = await client.get("/"), await client.head("/")
    assert (answer.url.path == "/console/models") is console
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "vary"):
        assert head.headers[name] == answer.headers[name]
    if kind == "text/html" and not console:
        assert 'href="docs"' in answer.text
        assert "script-src" not in answer.headers["content-security-policy"]
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")


async def test_the_api_page_has_all_it_needs(port: Port) -> None:
    """The page and its parts come from the port itself, and nothing in the page leads to another host."""
    async with httpx.AsyncClient(base_url=port.url) as client:
        answers = {path: await client.get(path) for path in API_PAGE_PATHS}
        heads = {path: await client.head(path) for path in API_PAGE_PATHS}
        gone = [(await client.get(path)).status_code for path in ("/redoc", "/docs/", "/docs/redoc.standalone.js")]
        document = (await client.get("/openapi.json")).json()
    assert {answer.status_code for answer in answers.values()} == {200}
    assert {path: head.headers["content-length"] for path, head in heads.items()} == {
        path: answer.headers["content-length"] for path, answer in answers.items()
    }
    assert gone == [404, 404, 404]
    page = answers["/docs"]
    assert not re.search(r"https?:|//", page.text)
    assert "'unsafe-inline'" not in re.search("script-src[^;]*", page.headers["content-security-policy"]).group()  # type: ignore[union-attr]
    assert {answer.headers["x-content-type-options"] for answer in answers.values()} == {"nosniff"}
    assert answers["/docs/swagger-ui.css"].headers["content-type"].startswith("text/css")
    assert b"SwaggerUIBundle" in answers["/docs/swagger-ui-bundle.js"].content
    assert document["servers"][0]["url"] == "./"  # behind a proxy's prefix, too
