"""What the requests of OpenAI's API hold, for OpenAPI: what is read here. All else goes to the model as it came."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from marway_gateway.json_models import JsonModel, JsonValue, examples

__all__ = ["ANSWERS", "ChatRequest", "CompletionRequest", "EmbeddingsRequest", "ResponsesRequest"]

_MODEL: Final = "A model's name, which means its version at PROD; a name with /LABEL or /VERSION; or a version's id."
ANSWERS: Final[dict[str, Any]] = {
    "application/json": {"schema": {"type": "object"}},
    "text/event-stream": {"schema": {"type": "string"}},
}
"""Content of answers that may come as events."""


class _Request(JsonModel):
    model_config = ConfigDict(extra="allow")

    model: str = Field(description=_MODEL)


class _Streaming(_Request):
    stream: bool | None = Field(default=None, description="Whether the answer comes as events, as it is made.")


class ChatRequest(_Streaming):
    """A conversation that the model goes on with."""

    model_config = examples({"model": "chat", "messages": [{"role": "user", "content": "Hello"}], "stream": True})

    messages: list[dict[str, JsonValue]]


class CompletionRequest(_Streaming):
    """A text that the model goes on with."""

    model_config = examples({"model": "chat/STG", "prompt": "Once upon a time", "max_tokens": 20})

    prompt: JsonValue


class ResponsesRequest(_Streaming):
    """An input of the Responses API."""

    model_config = examples({"model": "chat", "input": "Hello"})

    input: JsonValue = None


class EmbeddingsRequest(_Request):
    """Texts, each of which gets a vector."""

    model_config = examples({"model": "sentences", "input": ["wake me at seven", "tell me a joke"]})

    input: JsonValue = Field(description="A text, or a list of texts.")
    encoding_format: Literal["float", "base64"] | None = None
