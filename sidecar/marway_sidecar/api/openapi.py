"""What the sidecar's OpenAPI document says beside what FastAPI finds out itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI

from marway import errors
from marway.errors import MarwayError
from marway.wire.pods import WATCH_CONTENT_TYPE
from marway_http.pages.openapi import ANSWERS, BODIES, problem_responses, with_edge, with_problems, with_values

__all__ = ["ANSWER", "ANY_BODY", "WATCH", "describe", "problems"]

Json = dict[str, Any]

_EXAMPLES: Final[tuple[MarwayError, ...]] = (
    errors.ArchiveCorrupt("the registry's archive 4c31ac6ef5d2… has other bytes (f3b1…): publish the version again"),
    errors.BodyTooLarge("the body has 104857600 bytes; the limit is 67108864: send less at once"),
    errors.Conflict("this pod is stopping, which cannot be taken back: its successor takes requests"),
    errors.DeadlineExceeded("the deadline passed before the whole body had come", model="intent", version="1.0"),
    errors.Draining("this pod is stopping and takes no requests: send it to another"),
    errors.ForeignOrigin(
        "pages of 'https://app.example.com' may not send requests to this port: if they should, add the host to "
        "allowed_hosts (MARWAY_SIDECAR_ALLOWED_HOSTS)"
    ),
    errors.InvalidReference("'in tent' cannot be a model id: use 1 to 63 letters, digits, '.', '_' or '-'"),
    errors.InvalidRequest("X-Request-Timeout-Ms is 'soon': give a whole number of milliseconds, 1 or more"),
    errors.LabelNotFound("model 'intent' has no label STG: its labels are PROD → 1.0", model="intent"),
    errors.LoadFailed("intent 1.0 cannot be loaded: FileNotFoundError: weights.pt", model="intent", version="1.0"),
    errors.MarwayError("something went wrong in the sidecar; its log has it under 4bf92f35"),
    errors.Misdirected(
        "this port is not called 'pod.example.com': if that is a name of it, add the name to allowed_hosts "
        "(MARWAY_SIDECAR_ALLOWED_HOSTS)"
    ),
    errors.ModelError("KeyError: 'text'", model="intent", version="1.0"),
    errors.ModelLoading("intent 1.0 is being loaded", model="intent", version="1.0", retry_after_s=2),
    errors.ModelNotFound("there is no model 'itent': the registry has digits, intent", model="itent"),
    errors.Overloaded("64 requests wait for intent 1.0 already", model="intent", version="1.0"),
    errors.RegistryUnavailable("the registry file:///registry does not answer"),
    errors.RuntimeDown("the model server is down and being started again"),
    errors.Unavailable("intent 1.0 is not loaded here", model="intent", version="1.0"),
    errors.UnsupportedMedia("the body's Content-Encoding 'gzip' is not taken here: send it as it is"),
    errors.VersionNotFound("model 'intent' has no version '9': it has 1.0, 1.1", model="intent", version="9"),
)
_TITLES: Final = {
    400: "The request is wrong; `detail` says how.",
    403: "A page of another origin asked; `detail` says which.",
    404: "There is no such model, version or label; `detail` names those that there are.",
    409: "It clashes with what the pod is doing.",
    413: "The body is larger than the pod accepts.",
    415: "The body is in a coding, and none is taken here.",
    421: "The request was meant for a host that this port is not called.",
    429: "Too many requests wait already; `Retry-After` says when to try again.",
    500: "The model's code failed, the version cannot be loaded, or something went wrong in the sidecar.",
    502: "The archive's bytes are not those that were published.",
    503: "Nothing is wrong with the request; `Retry-After` says when to try again.",
    504: "The request's deadline passed first.",
}

ANY_BODY: Final[Json] = {
    "requestBody": {
        "required": True,
        "description": "The model's input, of any content type: these are the usual ones. The fields of forms reach "
        "the handler under their names, anything else under `data`.",
        "content": BODIES,
    }
}
ANSWER: Final[dict[int | str, Json]] = {
    200: {
        "description": "The model's own answer: its body, status and content type; in pieces, as they come, from a "
        "version that streams.",
        "content": ANSWERS,
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in (
                ("X-Marway-Outcome", "How far the request came; see the pod contract."),
                (
                    "X-Marway-Run",
                    "Microseconds in queue and model server, rows of its call, whether finite.",
                ),
                ("X-Request-Id", "The caller's, or made here."),
                ("X-Model-Name", "The model that answered."),
                ("X-Model-Version", "The version that answered."),
                ("X-Model-Id", "The same version's id."),
                ("Server-Timing", "Milliseconds in the model server, to the first piece of an answer."),
            )
        },
    }
}
WATCH: Final[Json] = {
    "description": "One `PodEvent` a line, for as long as the pod and the connection last.",
    "content": {
        WATCH_CONTENT_TYPE: {
            "example": '{"pod":{"name":"pod-0","boot_id":"01J","backend":"torchserve","ready":true}}\n'
            '{"models":[{"id":"mv_1","name":"intent","version":"1.0","state":"loading"}]}\n{}\n'
        }
    },
}


def problems(*kinds: type[MarwayError]) -> dict[int | str, Json]:
    """Return `responses` for the errors that a route can answer with, each with an example."""
    return problem_responses((each for each in _EXAMPLES if type(each) in kinds), titles=_TITLES)


def describe(app: FastAPI) -> Callable[[], Json]:
    """Return the app's `openapi` function: FastAPI's document with our problems, and what a watch sends."""
    made = app.openapi

    def openapi() -> Json:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = with_values(with_problems(made()))
        # FastAPI takes whatever is no JSON for text, beside the schema that it was given.
        watched = document["paths"]["/watch"]["get"]["responses"]["200"]["content"][WATCH_CONTENT_TYPE]
        watched["schema"].pop("type", None)
        document["servers"] = [{"url": "./", "description": "This pod."}]  # relative to the document
        refused = {str(status): said for status, said in problems(errors.ForeignOrigin, errors.Misdirected).items()}
        for operation in (each for path in document["paths"].values() for each in path.values()):
            operation["responses"].update(refused)
        return with_edge(document)

    return openapi
