"""Admin routes of what was kept of predictions: search them, and tell all of one."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from pydantic import ConfigDict
from pydantic.config import JsonDict

from marway import errors
from marway_gateway.gateway import CurrentGateway
from marway_gateway.json_models import examples
from marway_gateway.openapi import problems
from marway_gateway.surfaces.catalogue import AnyModel
from marway_observations.searching.questions import Explain, Explanation, Figures, ModelFigures, Search, SearchResult

__all__ = ["kept_router"]

_ERRORS: Final = (
    *(errors.InvalidInput, errors.InvalidRequest, errors.ModelNotFound, errors.RegistryUnavailable),
    *(errors.Overloaded, errors.DeadlineExceeded, errors.MarwayError),
)
_ROW: Final[JsonDict] = {
    "prediction_id": "01JZ3W5N8Q3F6A0C91D24B7E58",
    "request_id": "4bf92f35",
    "group_id": None,
    "model": "intent",
    "version": "1.0",
    "label": "PROD",
    "role": "base",
    "at": "2026-03-04T12:00:00Z",
    "surface": "native",
    "client": "127.0.0.1",
    "pod": "pod-0",
    "status": "200",
    "outcome": "ok",
    "error": None,
    "duration_s": 0.0042,
    "bodies": "kept",
    "answer_type": "application/json",
    "answer": '{"label": "alarm"}',
    "truth": None,
    "correct": True,
    "score": None,
}
_WHY: Final[JsonDict] = {
    "prediction": {"prediction_id": "01JZ3W5N8Q3F6A0C91D24B7E58", "status": "200", "outcome": "ok"},
    "version": {"model": "intent", "version": "1.0"},
    "proofs": [],
    "label": None,
    "traffic": {"role": "base", "decision": "the version itself: nobody was diverted"},
    "pod": {"pod": "pod-0", "attempts": 1, "cache": None, "batch_rows": 1},
    "timings": {"duration_s": 0.0042, "model_s": 0.0031},
    "graph": None,
    "steps": None,
    "feedback": {"counts": {}, "given": []},
    "others": [],
}


_LATENCY: Final[JsonDict] = {
    "version": "1.0",
    "at": "2026-03-04T11:30:00Z",
    "p50_s": 0.0041,
    "p99_s": 0.0093,
    "requests": 1204,
    "errors": 1,
}
_ERROR: Final[JsonDict] = {
    "version": "1.0",
    "outcome": "model_error",
    "error": "model_error",
    "kept": 1,
    "last_at": "2026-03-04T11:34:10Z",
    "request_id": "4bf92f35",
    "prediction_id": "01JZ3W5N8Q3F6A0C91D24B7E58",
    "pod": "pod-0",
}


class PredictionsView(SearchResult):
    """Predictions, newest first."""

    model_config = ConfigDict(
        **examples(
            {
                "since": "2026-03-03T12:00:00Z",
                "until": "2026-03-04T12:05:00Z",
                "predictions": [_ROW],
                "more": False,
                "left_out": [],
            }
        )
    )


class ExplanationView(Explanation):
    """All that is known of one prediction; `why` is what `marway why ID --json` prints."""

    model_config = ConfigDict(
        **examples(
            {
                "why": _WHY,
                "input": {"content_type": "text/plain", "size_bytes": 16, "text": "wake me at seven"},
                "output": {"content_type": "application/json", "size_bytes": 18, "text": '{"label": "alarm"}'},
                "left_out": [],
            }
        )
    )


class FiguresView(ModelFigures):
    """How a model's versions did over a time."""

    model_config = ConfigDict(
        **examples(
            {
                "model": "intent",
                "since": "2026-03-03T12:00:00Z",
                "until": "2026-03-04T12:00:00Z",
                "bucket_s": 1800.0,
                "latency": [_LATENCY],
                "quality": [],
                "errors": [_ERROR],
                "left_out": [],
            }
        )
    )


def kept_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["observations"])

    @router.get("/observations", summary="Search what was kept of predictions", responses=problems(*_ERRORS))
    async def search_predictions(wanted: Annotated[Search, Query()]) -> PredictionsView:
        """The newest first, in the time that is given, or the last 24 hours. A gateway writes what it keeps some
        seconds after the answer.
        """
        found = await current().kept.search(wanted)
        return PredictionsView.model_validate(found.model_dump())

    @router.get(
        "/observations/{id}",
        summary="Where one answer came from",
        responses=problems(*_ERRORS, errors.NotFound),
    )
    async def explain_prediction(
        id_: Annotated[str, Path(alias="id", max_length=200, description="A prediction's id, or its request's.")],
        model: Annotated[str | None, Query(max_length=200, description="Whose it is: then it is found faster.")] = None,
        since: Annotated[
            str, Query(max_length=200, description="Look from then on, where the id does not say when.")
        ] = "7d",
    ) -> ExplanationView:
        """Its version, proofs, release, pod, batch, times and feedback, and what was kept of its bodies."""
        found = await current().kept.explain(Explain(id=id_, model=model, since=since))
        return ExplanationView.model_validate(found.model_dump())

    @router.get("/models/{model}/figures", summary="How a model's versions did", responses=problems(*_ERRORS))
    async def model_figures(
        model: AnyModel,
        since: Annotated[
            str, Query(max_length=200, description="How far back, such as `24h`, or from when on.")
        ] = "24h",
    ) -> FiguresView:
        """What callers waited, what failed and how good answers were, by what was kept of predictions."""
        found = await current().kept.figures(Figures(model=model, since=since))
        return FiguresView.model_validate(found.model_dump())

    return router
