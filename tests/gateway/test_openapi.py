import json
from pathlib import Path

import pytest
from fastapi import FastAPI

from marway.settings import load_settings
from marway_gateway.admin import create_admin_app
from marway_gateway.app import create_app
from marway_gateway.settings import GatewaySettings


@pytest.fixture(params=[create_app, create_admin_app])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> FastAPI:
    made: FastAPI = request.param(load_settings(GatewaySettings, registry=str(tmp_path)))
    return made


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
        if "torchserve" in operation["tags"]:
            continue  # in a form of its own: below
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, name
            assert content["examples"], name
            assert all(example["value"]["status"] == int(status) for example in content["examples"].values()), name
            assert ("headers" in response) == (status in ("429", "503")), name


def test_torchserves_errors_have_its_form_and_examples(tmp_path: Path) -> None:
    """Each error of a route of TorchServe's is one of its error documents, with an example that fits its status."""
    app = create_app(load_settings(GatewaySettings, registry=str(tmp_path)))
    seen = set()
    for name, operation in operations(app):
        if "torchserve" not in operation["tags"] or name == "get /ping":
            continue
        seen.add(name.partition("/{")[0])
        errors = {status: each for status, each in operation["responses"].items() if int(status) >= 400}
        assert set(errors) == {"400", "404", "413", "429", "500", "503", "504"}, name
        for status, response in errors.items():
            content = response["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/TorchServeError"}, name
            assert content["examples"], name
            for example in content["examples"].values():
                assert set(example["value"]) == {"code", "type", "message"}, name
                assert example["value"]["code"] == int(status), name
            assert ("headers" in response) == (status in ("429", "503")), name
    assert seen == {"post /predictions", "put /predictions", "post /explanations", "put /explanations"}


def test_no_schema_of_ours_is_open(app: FastAPI) -> None:
    """Every object schema names its properties, or is a map with typed values."""
    for name, schema in app.openapi()["components"]["schemas"].items():
        if schema.get("type") == "object":
            assert schema.get("properties"), name
        for field, value in schema.get("properties", {}).items():
            assert value.keys() & {"type", "$ref", "anyOf", "allOf", "const", "enum"}, f"{name}.{field}"


def test_paths(tmp_path: Path) -> None:
    """The public and the admin document have the routes of the contract that are built so far."""
    settings = load_settings(GatewaySettings, registry=str(tmp_path))
    shared = {"/healthz", "/metrics", "/models", "/models/{model}", "/models/{model}/versions/{version}"}
    public = {"/predict/{model}", "/predict/{model}/{selector}", "/readyz"}
    public |= {"/predictions/{model}", "/predictions/{model}/{selector}", "/ping"}
    public |= {"/explanations/{model}", "/explanations/{model}/{selector}"}
    assert set(create_app(settings).openapi()["paths"]) == shared | public
    model, version = "/models/{model}", "/models/{model}/versions/{version}"
    admin = {f"{model}/labels/{{label}}", f"{model}/labels/{{label}}/rollback", f"{model}/serving"}
    admin |= {f"{version}/load", f"{version}/unload", f"{version}/pods", "/pods", "/pods/{pod}", "/pods/{pod}/drain"}
    assert set(create_admin_app(settings).openapi()["paths"]) == shared | admin


def test_tokens_are_documented(tmp_path: Path) -> None:
    """With a token file each operation but health and metrics says that it wants one, and what it answers without."""
    tokens = tmp_path / "tokens"
    tokens.write_text("s3cret-token\n")
    settings = load_settings(
        GatewaySettings, registry=str(tmp_path), admin_tokens_file=tokens, predict_tokens_file=tokens
    )
    for app in (create_app(settings), create_admin_app(settings)):
        for name, operation in operations(app):
            is_open = name.partition(" ")[2] in ("/healthz", "/readyz", "/metrics")
            assert ("401" in operation["responses"], "security" in operation) == (not is_open, not is_open), name
            if not is_open:
                schema = next(iter(operation["responses"]["401"]["content"].values()))["schema"]
                expected = "TorchServeError" if "torchserve" in operation["tags"] and "ping" not in name else "Problem"
                assert schema["$ref"].endswith(expected), name
        assert app.openapi()["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


async def test_app_on_its_own(tmp_path: Path) -> None:
    """Without a gateway given, an app opens its own while it runs."""
    import httpx

    app = create_app(load_settings(GatewaySettings, registry=str(tmp_path), access_log=False))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        assert (await client.get("/models")).json() == {"models": [], "next": None}
