"""From the problem document that a caller got to the traceback: by the request's id, in every log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from marway.refs import new_ulid
from marway_archiver import publish
from support.cli import marway, refused
from support.up import Up, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
MODELS = Path(__file__).parent / "models"
PLAIN = {"content-type": "text/plain"}


@pytest.fixture(scope="module")
def wordy(up: Up) -> str:
    """A model that is served in batches."""
    publish(
        model_name="wordy",
        version="1.0",
        handler=str(MODELS / "wordy.py"),
        examples=["one", "two"],
        registry=up.registry,
        label="PROD",
    )
    return "wordy"


def records(up: Up) -> dict[str, list[dict[str, Any]]]:
    """Return the records in the logs of all processes of the home; every line has to be one."""
    found = {}
    for path in sorted((up.home / "logs").glob("*.log")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            assert {"time", "level", "message"} <= line.keys(), line
            assert not line["message"].startswith('{"time"'), "a record in a record"
        found[path.stem] = lines
    return found


def of_request(up: Up, request: str) -> dict[str, list[dict[str, Any]]]:
    """Return by process the records that name this request."""
    about = {
        name: [line for line in lines if request in (line.get("request_id"), *line.get("request_ids", ()))]
        for name, lines in records(up).items()
    }
    return {name.partition("-")[0]: lines for name, lines in about.items() if lines}


def test_a_raising_handler_is_found_by_its_request(up: Up, client: httpx.Client, wordy: str) -> None:
    """What the handler printed, logged and raised for a request has its id, and so have the gateway's and the sidecar's
    lines about it; another request's lines do not come with it."""
    client.post(f"/predict/{wordy}", content=b"fine", headers=PLAIN)
    answer = client.post(f"/predict/{wordy}", content=b"boom", headers=PLAIN)
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (500, "model_error")
    request = problem["request_id"]
    shown = marway("logs", wordy, "--request", request, "--home", str(up.home))
    assert shown.returncode == 0, shown.stderr
    for line in (
        f"POST /predict/{wordy}: 500 model_error",
        "prediction failed: ValueError: a word that nobody likes",
        "asked for boom",
        "logged with 1 rows",
        "Traceback (most recent call last):",
        "ValueError: a word that",
    ):
        assert line in shown.stdout
    assert "fine" not in shown.stdout
    assert all(f" wordy 1.0 {request} | " in line for line in shown.stdout.splitlines())
    wait_until(
        lambda: len(of_request(up, request)) == 3, timeout_s=20, what="the request in the logs of three processes"
    )
    found = of_request(up, request)
    assert found.keys() == {"gateway", "runtime", "sidecar"}
    (access,) = found["gateway"]
    assert (access["status"], access["error"]) == (500, "model_error")
    (failed,) = found["sidecar"]
    assert (failed["model"], failed["version"], failed["error"]) == ("wordy", "1.0", "model_error")
    (raised,) = [line for line in found["runtime"] if "traceback" in line]
    assert raised["traceback"].endswith("ValueError: a word that nobody likes")
    assert (raised["level"], raised["model"], raised["version"]) == ("error", "wordy", "1.0")
    assert isinstance(raised["worker"], int)


def test_a_batch_names_all_its_requests(up: Up, client: httpx.Client, wordy: str) -> None:
    """What is printed for several rows at once has the ids of all, and what one of them raised alone has its own."""
    request = new_ulid()
    answer = client.post(
        f"/v1/models/{wordy}:predict", json={"instances": ["one", "boom"]}, headers={"x-request-id": request}
    )
    assert answer.status_code == 500, answer.text
    lines = marway("logs", wordy, "--request", request, "--home", str(up.home), "--json").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    both = [f"{request}/0", f"{request}/1"]
    assert [line["request_ids"] for line in found if line["message"] == "logged with 2 rows"] == [both]
    (alone,) = [line for line in found if "traceback" in line and "request_id" in line]
    assert alone["request_id"] == f"{request}/1"
    assert {(line["model"], line["version"]) for line in found} == {("wordy", "1.0")}
    assert {line["component"] for line in found} == {"gateway", "sidecar", "worker"}
    workers = [line for line in found if line["component"] == "worker"]
    assert all({"time", "level", "message", "worker", "pod"} <= line.keys() for line in workers)


def test_an_id_that_is_none_is_refused(up: Up, client: httpx.Client, wordy: str) -> None:
    """A caller's id that could not be logged is replaced, and the command refuses one that no request can have."""
    answer = client.post(f"/predict/{wordy}", content=b"boom", headers={**PLAIN, "x-request-id": 'a" b' + "x" * 200})
    assert "x" * 200 not in answer.json()["request_id"]
    said = refused(marway("logs", wordy, "--request", 'a" b', "--home", str(up.home)))
    assert "cannot be a request's id" in said
    nothing = marway("logs", wordy, "--request", "never-sent", "--home", str(up.home))
    assert (nothing.stdout, nothing.stderr) == ("", "nothing was printed for request never-sent\n")


def test_a_missing_import_is_said_everywhere(up: Up, client: httpx.Client, tmp_path: Path) -> None:
    """The client's problem, the pod's status, `marway pods` and a refused release name the module, file and line."""
    (tmp_path / "handler.py").write_text(
        "import json\n\nimport nothing_there\n\n\ndef handle(data, context):\n    return data\n"
    )
    publish(
        model_name="lacking", version="1.0", handler=str(tmp_path / "handler.py"), registry=up.registry, label="PROD"
    )
    said = "ModuleNotFoundError: No module named 'nothing_there' (handler.py line 3)"
    problem = client.post("/predict/lacking", content=b"x").json()
    assert problem["code"] == "load_failed"
    assert said in problem["detail"]
    assert "requirements.txt" in problem["detail"]
    where = ("--gateway", str(up.ready["admin"]))
    assert said in marway("pods", "lacking", *where, "--json").stdout
    assert said in refused(marway("release", "lacking", "1.0", "--label", "STG", *where))
    statuses = [httpx.get(f"{pod['url']}/status", trust_env=False).json() for pod in up.ready["pods"]]
    failures = [model["failure"] for status in statuses for model in status["models"] if model["name"] == "lacking"]
    assert said in " ".join(filter(None, failures))
    request = problem["request_id"]
    wait_until(lambda: "sidecar" in of_request(up, request), timeout_s=20, what="the sidecar's line")
    load_failed, refused_here = of_request(up, request)["sidecar"]  # the load names the requests that wait for it
    assert said in load_failed["message"]
    assert said in refused_here["message"]
    (load,) = [
        line
        for name, lines in records(up).items()
        if name.startswith("runtime")
        for line in lines
        if line.get("model") == "lacking" and "traceback" in line
    ][:1]
    assert said in load["reason"]
    assert load["traceback"].endswith("ModuleNotFoundError: No module named 'nothing_there'")
