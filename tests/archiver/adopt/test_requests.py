"""Files of clients' requests: lines of one's own, of an access log, of `marway pack --examples`, and HAR."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from marway.errors import InvalidInput
from marway_archiver.adopt.comparing.requests import Requests, read_requests
from marway_archiver.adopt.comparing.routes import Route, default_route, route_of


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def read(tmp_path: Path, *lines: Any, **protocols: Any) -> Requests:
    return read_requests(written(tmp_path / "requests.jsonl", *lines), protocols or {"intent": "torchserve"})


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/predictions/intent", Route("torchserve", "intent", verb="predictions")),
        ("http://o/predictions/intent/1.0?a=1", Route("torchserve", "intent", "1.0", verb="predictions", query="a=1")),
        ("/explanations/intent", Route("torchserve", "intent", verb="explanations")),
        ("/predictions/intent/1.0/v1/chat", Route("torchserve", "intent", "1.0", verb="predictions", rest="/v1/chat")),
        ("/wfpredict/flow", Route("torchserve", "flow", verb="wfpredict")),
        ("/v1/models/half:predict", Route("v1", "half", verb="predict")),
        ("/v1/models/half/versions/123:regress", Route("v1", "half", "123", verb="regress")),
        ("/v1/models/half/labels/stable:predict", Route("v1", "half", label="stable", verb="predict")),
        ("/v2/models/iris/infer", Route("v2", "iris", verb="infer")),
        ("/seldon/iris/v2/models/iris/versions/1/infer", Route("v2", "iris", "1", verb="infer", prefix="/seldon/iris")),
        ("/v2/models/a%20b/infer", Route("v2", "a b", verb="infer")),
        *((path, None) for path in ("/ping", "/v2/models/iris", "/v2/health/ready", "/models", "/v1/models/a", "b/x")),
    ],
)  # fmt: skip
def test_a_path_says_what_is_asked(path: str, route: Route | None) -> None:
    """Each protocol's paths are told apart, also behind a router's prefix; all others are no predictions."""
    assert route_of(path) == route
    if route is not None and path.startswith("/"):
        assert route.path == path


def test_marway_is_asked_by_the_same_path() -> None:
    """A client keeps its path, but for what a router put before it and names that Marway cannot have."""
    assert default_route("v2", "iris").at_marway("iris", "1").path == "/v2/models/iris/infer"
    routed = Route("v1", "Bad name", "3", verb="predict", prefix="/serving/shop/x")
    assert routed.at_marway("Bad-name", "3.0").path == "/v1/models/Bad-name/versions/3.0:predict"
    assert default_route("torchserve", "intent").at_marway("intent", "2", "STG").path == "/predictions/intent/STG"


def test_lines_name_a_path_and_a_body(tmp_path: Path) -> None:
    """JSON, text, bytes and files are bodies; each request is read once; what is no prediction is told by why."""
    (tmp_path / "cat.png").write_bytes(b"\x89PNG")
    found = read(
        tmp_path,
        {"path": "/predictions/intent", "body": {"text": "hello"}},
        {"path": "/predictions/intent", "body": {"text": "hello"}},
        {"path": "/predictions/intent", "body": "hello", "headers": {"X-Shop": "1", "Host": "old:8080", "Cookie": "a"}},
        {"path": "/predictions/intent", "body": '{"text": 1}'},
        {"path": "/predictions/intent", "body_base64": base64.b64encode(b"\0\1").decode()},
        {"path": "/predictions/intent", "file": "cat.png", "content_type": "image/png"},
        {"model": "intent", "version": "1.0", "input": ["a"], "output": {"label": "x"}, "status": 200},
        {"input": "by the only model"},
        "",
        {"method": "GET", "path": "/ping"},
        {"method": "GET", "path": "/predictions/intent?text=a"},
        {"path": "/predictions/intent"},
    )
    bodies = [(each.body, each.content_type) for each in found.found]
    assert bodies == [
        (b'{"text":"hello"}', "application/json"),
        (b"hello", "text/plain"),
        (b'{"text": 1}', "application/json"),
        (b"\0\1", "application/octet-stream"),
        (b"\x89PNG", "image/png"),
        (b'["a"]', "application/json"),
        (b"by the only model", "text/plain"),
    ]
    assert found.repeated == 1
    assert sum(found.left_out.values()) == 3
    assert found.found[1].headers == {"x-shop": "1", "cookie": "a"}
    assert found.found[1].host == "old:8080"
    assert found.found[5].route == Route("torchserve", "intent", "1.0", verb="predictions")
    assert found.found[5].answer is not None
    assert json.loads(found.found[5].answer.body) == {"label": "x"}


def test_lines_of_access_logs(tmp_path: Path) -> None:
    """Their own names of fields are known, and those that say nothing of a request are told."""
    line = {
        "ts": "2026-01-01", "remote_addr": "10.0.0.1", "request_method": "POST", "request_uri": "/v2/models/iris/infer",
        "request_body": '{"inputs": []}', "response_body": '{"outputs": []}', "status": "200", "request_time": 0.25,
    }  # fmt: skip
    found = read(tmp_path, line, iris="v2")
    (request,) = found.found
    assert request.route.path == "/v2/models/iris/infer"
    assert request.content_type == "application/json"
    assert request.answer is not None
    assert (request.answer.status, request.answer.seconds) == (200, 0.25)
    assert found.not_read == {"ts": 1, "remote_addr": 1}


def test_har_files(tmp_path: Path) -> None:
    """What browsers and proxies record: requests with their bodies, and what was answered."""

    def entry(url: str, **more: Any) -> dict[str, Any]:
        posted = {"postData": {"mimeType": "application/json", "text": '{"instances": [1]}'}}
        headers = [{"name": "Authorization", "value": "Bearer x"}, {"name": ":authority", "value": "old"}]
        request = {"method": "POST", "url": url, "headers": headers, **posted, **more}
        content = {"mimeType": "application/json", "text": base64.b64encode(b"[2]").decode(), "encoding": "base64"}
        return {"request": request, "response": {"status": 200, "content": content}, "timings": {"wait": 12.5}}

    entries = [
        entry("https://models.shop.test/v1/models/half:predict"),
        entry("https://models.shop.test/", method="GET", postData={}),
        entry("https://models.shop.test/v1/models/half:predict", postData={"mimeType": "x"}),
    ]
    path = tmp_path / "shop.har"
    path.write_text(json.dumps({"log": {"version": "1.2", "entries": entries}}))
    found = read_requests(path, {"half": "v1"})
    (request,) = found.found
    assert (request.host, request.headers) == ("models.shop.test", {"authorization": "Bearer x"})
    assert request.answer is not None
    assert (request.answer.body, request.answer.seconds) == (b"[2]", 0.0125)
    assert sum(found.left_out.values()) == 2


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["{"], "requests.jsonl:1: is not JSON"),
        (["[1]"], "an object is wanted"),
        ([{"body": "x"}], "there are several models"),
        ([{"path": 1, "body": "x"}], "path is a text"),
        ([{"path": "/predictions/a", "body": "x", "file": "y"}], "one of 'body', 'body_base64' and 'file'"),
        ([{"path": "/predictions/a", "file": "gone.png"}], "there is no file"),
        ([{"path": "/predictions/a", "body_base64": "!"}], "is not base64"),
        ([{"path": "/predictions/a", "body": "x", "headers": "y"}], "headers is an object"),
        ([{"path": "/predictions/a", "body": "x", "answer": "y", "status": "no"}], "status is a number"),
        ([{"method": "GET", "path": "/ping"}], "holds no request for a prediction: 1 ask for no prediction"),
    ],
)
def test_what_cannot_be_read_is_refused(lines: list[Any], said: str, tmp_path: Path) -> None:
    """One sentence names the line and what is wrong."""
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, *lines, a="torchserve", b="v2")
    assert said in caught.value.message
