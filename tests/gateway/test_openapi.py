import json
import re
from pathlib import Path

import pytest
from fastapi import FastAPI

from marway.settings import load_settings
from marway_gateway.admin.app import create_admin_app
from marway_gateway.app import create_app
from marway_gateway.settings import GatewaySettings


@pytest.fixture(params=[create_app, create_admin_app])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> FastAPI:
    made: FastAPI = request.param(load_settings(GatewaySettings, registry=str(tmp_path)))
    return made


EDGE = ("400", "408", "431", "503")
"""What a connection answers by itself, of whatever surface the path is."""


def operations(app: FastAPI) -> list[tuple[str, dict]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_answer_is_named(app: FastAPI) -> None:
    """No operation has a catch-all answer, or FastAPI's own validation answer."""
    for name, operation in operations(app):
        assert all(status.isdigit() for status in operation["responses"]), name
        assert "422" not in operation["responses"], name
    assert "HTTPValidationError" not in json.dumps(app.openapi())


def test_errors_are_problems_with_examples(app: FastAPI) -> None:
    """Each error of a native route is a problem document with an example that fits its status."""
    for name, operation in operations(app):
        if not {"open inference", "openai", "torchserve", "v1"}.isdisjoint(operation["tags"]):
            continue  # in forms of their own: below
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, name
            assert content["examples"], name
            assert all(example["value"]["status"] == int(status) for example in content["examples"].values()), name
            assert ("headers" in response) == (status in ("429", "503")), name


def test_errors_of_standard_protocols_are_texts_with_examples(app: FastAPI) -> None:
    """Each error of a v1 or v2 route is `{"error": "…"}`, with an example for each cause."""
    for name, operation in operations(app):
        if {"open inference", "v1"}.isdisjoint(operation["tags"]):
            continue  # in forms of their own: below
        for status, response in operation["responses"].items():
            if int(status) < 400 or (status in EDGE and list(response["content"]) == ["application/problem+json"]):
                continue
            content = response["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/ErrorText"}, name
            assert content["examples"], name
            assert all(example["value"].keys() == {"error"} for example in content["examples"].values()), name
            assert ("headers" in response) == (status in ("429", "503")), name


def test_errors_of_openais_api_have_its_form(app: FastAPI) -> None:
    """Each error has a message, a type, a parameter and a code, which is OpenAI's where it has one."""
    for name, operation in operations(app):
        if "openai" not in operation["tags"]:
            continue
        for status, response in operation["responses"].items():
            if int(status) < 400 or (status in EDGE and list(response["content"]) == ["application/problem+json"]):
                continue
            content = response["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/OpenAIError"}, name
            errors = [example["value"]["error"] for example in content["examples"].values()]
            assert all(error.keys() >= {"message", "type", "code"} for error in errors), name
            if status == "404":
                # Only what predicts goes on with a sequence.
                gone = {"sequence_not_found"} if name.startswith("post ") else set()
                assert {error["code"] for error in errors} == {"model_not_found"} | gone, name


def test_what_any_request_may_be_answered(app: FastAPI) -> None:
    """Each operation has what its connection answers before a route is looked for, as problems."""
    admin = "admin" in app.title
    for name, operation in operations(app):
        for status in EDGE:
            content = operation["responses"][status]["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, name
            assert {each["value"]["status"] for each in content["examples"].values()} == {int(status)}, name
        assert ({"403", "421"} <= operation["responses"].keys()) == admin, name
        writes = name.split()[0] in ("delete", "patch", "post", "put")
        assert not (admin and writes) or "415" in operation["responses"], name


def test_what_models_may_not_have_is_documented(app: FastAPI) -> None:
    """Of v1 and v2, explanations alone may be 501: not every model has some."""
    for name, operation in operations(app):
        if not {"open inference", "v1"}.isdisjoint(operation["tags"]):
            assert ("501" in operation["responses"]) == name.endswith("explain"), name


def test_bodies_can_be_tried(app: FastAPI) -> None:
    """Each body that is taken has a schema and, where it is JSON, an example."""
    schemas = app.openapi()["components"]["schemas"]
    for name, operation in operations(app):
        for kind, body in operation.get("requestBody", {}).get("content", {}).items():
            assert body["schema"], name
            if kind == "application/json":
                kinds = [body["schema"], *body["schema"].get("anyOf", ())]
                named = [schemas[each["$ref"].rpartition("/")[2]] for each in kinds if "$ref" in each]
                assert body.get("examples") or any(each.get("examples") for each in named), name


def test_the_documents_refer_to_what_they_have(app: FastAPI) -> None:
    """Every reference within a document leads somewhere."""
    document = app.openapi()
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in document["components"]["schemas"], name


def test_no_schema_of_ours_is_open(app: FastAPI) -> None:
    """Every object schema names its properties, or is a map with typed values."""
    for name, schema in app.openapi()["components"]["schemas"].items():
        if schema.get("type") == "object":
            assert schema.get("properties"), name
        for field, value in schema.get("properties", {}).items():
            assert value.keys() & {"type", "$ref", "anyOf", "allOf", "const", "enum"}, f"{name}.{field}"


def test_paths(tmp_path: Path) -> None:
    """The public and the admin document have the routes of the contract."""
    settings = load_settings(GatewaySettings, registry=str(tmp_path))
    shared = {"/", "/healthz", "/metrics", "/models", "/models/{model}", "/models/{model}/versions/{version}"}
    public = {"/predict/{model}", "/predict/{model}/{selector}", "/readyz", "/feedback", "/predictions/async/{ticket}"}
    public |= {"/v2", "/v2/health/live", "/v2/health/ready"}
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{selector}"):
        public |= {model, f"{model}/ready", f"{model}/infer", f"{model}/explain"}
    for model in ("/v1/models/{model}", "/v1/models/{model}/versions/{selector}", "/v1/models/{model}/labels/{label}"):
        verbs = ("predict", "explain", "classify", "regress")
        public |= {model, f"{model}/metadata", *(f"{model}:{verb}" for verb in verbs)}
    public |= {f"/openai/v1/{path}" for path in ("models", "models/{model}", "embeddings", "responses")}
    public |= {f"/openai/v1/{path}" for path in ("chat/completions", "completions")}
    for verb in ("predictions", "explanations", "wfpredict"):
        public |= {f"/{verb}/{{model}}", f"/{verb}/{{model}}/{{selector}}"}
    admin = {
        "/models/{model}/versions",
        "/access",
        "/events",
        "/rollouts",
        "/settings",
        "/pods",
        "/pods/{pod}",
        "/pods/{pod}/drain",
        "/models/{model}/serving",
    }
    admin |= {f"/models/{{model}}/labels/{{label}}{after}" for after in ("", "/rollback")}
    rollout = "/models/{model}/labels/{label}/rollout"
    admin |= {"/models/{model}/labels/{label}/shadow"}
    admin |= {rollout, *(f"{rollout}/{verb}" for verb in ("abort", "course", "pause", "promote", "resume"))}
    admin |= {"/models/{model}/labels/{label}/protection", "/models/{model}/labels/{label}/approvals"}
    admin |= {"/models/{model}/contracts", "/models/{model}/contracts/{consumer}/{name}"}
    admin |= {"/models/{model}/figures", "/observations", "/observations/{id}", "/console/try/{model}/{selector}"}
    inside = ("differences", "examples", "examples/{number}", "files", "proofs")
    verbs = ("compare", "contracts", "load", "log", "pods", "unload", *inside)
    admin |= {f"/models/{{model}}/versions/{{version}}/{after}" for after in verbs}
    admin |= {f"/v2/repository/{path}" for path in ("index", "models/{model}/load", "models/{model}/unload")}
    assert set(create_app(settings).openapi()["paths"]) == shared | public | {"/ping"}
    assert set(create_admin_app(settings).openapi()["paths"]) == shared | admin


def test_predictions_have_ids() -> None:
    """The answer of every route that predicts names its id; an explanation has none."""
    paths = create_app(load_settings(GatewaySettings, registry="file:///nowhere")).openapi()["paths"]
    answers = {
        path: methods["post"]["responses"].get("200", {}) for path, methods in paths.items() if "post" in methods
    }
    named = {path for path, answer in answers.items() if "X-Prediction-Id" in answer.get("headers", {})}
    assert named == {path for path in answers if path != "/feedback" and "expla" not in path}
