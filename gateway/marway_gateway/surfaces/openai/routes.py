"""OpenAI's API under `/openai/v1`, so that its clients change nothing but the base URL."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.requests import FastPathApp
from marway_gateway.openapi import PREDICTION_ERRORS, add_served, error_responses
from marway_gateway.surfaces.openai.errors import OPENAI_ERRORS
from marway_gateway.surfaces.openai.models import models_router
from marway_gateway.surfaces.openai.prediction import NAME, OpenAIRoute
from marway_gateway.surfaces.openai.schema import (
    ANSWERS,
    ChatRequest,
    CompletionRequest,
    EmbeddingsRequest,
    ResponsesRequest,
)
from marway_gateway.surfaces.surface import Surface

__all__ = ["OPENAI"]

_ROUTES: Final[tuple[tuple[str, str, type[BaseModel]], ...]] = (
    ("chat/completions", "Go on with a conversation, as OpenAI does", ChatRequest),
    ("completions", "Go on with a text, as OpenAI does", CompletionRequest),
    ("embeddings", "Turn texts into vectors, as OpenAI does", EmbeddingsRequest),
    ("responses", "Answer by the Responses API, as OpenAI does", ResponsesRequest),
)


def _add_routes(app: FastPathApp, gateway: CurrentGateway) -> None:
    for path, summary, body in _ROUTES:
        streams = body is not EmbeddingsRequest
        content = ANSWERS if streams else {"application/json": ANSWERS["application/json"]}
        answer: dict[int | str, dict[str, Any]] = {
            200: {"description": "The model's answer, in OpenAI's form.", "content": content}
        }
        add_served(
            app,
            OpenAIRoute(gateway, path),
            ((f"/openai/v1/{path}", f"openai_{path.replace('/', '_')}", summary),),
            body=body,
            tags=[NAME],
            responses={**answer, **error_responses(OPENAI_ERRORS, *PREDICTION_ERRORS)},
        )
    app.include_router(models_router(gateway, NAME))


OPENAI: Final = Surface(
    name=NAME,
    tag=NAME,
    about="OpenAI's API: chat completions, completions, embeddings and responses, by `model`.",
    segments=("openai",),
    error_form=OPENAI_ERRORS,
    add_routes=_add_routes,
)
