"""Predictions searched for a page: by what a person remembers of them, bounded, in a process of its own."""

import base64
import json
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.fakes import running
from marway.errors import InvalidInput, InvalidReference, ModelNotFound, NotFound
from marway.records import utc_now
from marway.registry import Registry
from marway_observations.searching.questions import Explain, Search
from marway_observations.searching.searching import explain, search
from support.observations import feedback, observation, write_feedback, write_observations
from support.registry import publish
from support.registry_fixtures import directory, registry, store_url

__all__ = ["directory", "registry", "store_url"]

BINARY = b"\x89PNG\xff"


@pytest.fixture
def kept(registry: Registry, tmp_path: Path) -> list[dict[str, object]]:
    """Three predictions of a minute: one that went well and was told to be wrong, one failure, one with a picture."""
    publish(registry, tmp_path)
    now = utc_now() - timedelta(minutes=1)
    rows = [
        observation(
            {"label": "x" * 300}, at=now, version="1.0", request_id="r-1", input=b"hello", input_type="text/plain"
        ),
        observation(
            at=now + timedelta(seconds=1), version="1.0", outcome="model_error", error="model_error", status="500"
        ),
        observation(1, at=now + timedelta(seconds=2), version="1.0", label=None, input=BINARY, input_type="image/png"),
    ]
    write_observations(registry.store, "intent", rows)
    write_feedback(registry.store, [feedback(correct=False, prediction_id=rows[0]["prediction_id"], at=now)])
    return rows


def test_what_a_person_remembers(registry: Registry, kept: list[dict[str, object]]) -> None:
    """By request id, failures alone, label and limit; the newest first, answers cut, feedback beside them."""

    def found(**wanted: object) -> list[object]:
        return [each.prediction_id for each in search(registry, registry.store, Search(**wanted)).predictions]

    well, failed, picture = (row["prediction_id"] for row in kept)
    assert found() == found(model="INTENT") == [picture, failed, well]
    assert found(id="r-1") == found(id=str(well)) == [well]
    assert found(failed=True) == [failed]
    assert found(label="PROD", outcome="ok") == [well]
    assert found(until="30m") == []
    newest = search(registry, registry.store, Search(limit=1))
    assert (len(newest.predictions), newest.more) == (1, True)
    (row,) = search(registry, registry.store, Search(id="r-1")).predictions
    assert (row.correct, len(row.answer or "")) == (False, 200)
    with pytest.raises(ModelNotFound):
        found(model="other")
    with pytest.raises(InvalidInput, match="is no time"):
        found(since="yesterday")
    with pytest.raises(InvalidInput, match="from 1970 on"):
        found(since="0001-01-01T00:00:00Z")


def test_all_of_one(registry: Registry, kept: list[dict[str, object]]) -> None:
    """One prediction is told as `marway why` tells it, with its bodies: as text, or as bytes."""
    told = explain(registry, registry.store, Explain(id="r-1"))
    assert told.why["version"]["model"] == "intent"
    assert told.input is not None
    assert told.input.text == "hello"
    assert told.output is not None
    assert json.loads(told.output.text or "") == {"label": "x" * 300}
    picture = explain(registry, registry.store, Explain(id=str(kept[2]["prediction_id"])))
    assert picture.input is not None
    assert (picture.input.text, picture.input.base64, picture.input.size_bytes) == (
        None,
        base64.b64encode(BINARY).decode(),
        5,
    )
    with pytest.raises(NotFound, match="nothing was kept"):
        explain(registry, registry.store, Explain(id="r-9"))


@pytest.mark.extended  # two processes that read Parquet; what they find, the tests above show
@pytest.mark.parametrize("model", ["intent/../../state", "' OR true --", "..", "a\0b"])
def test_names_that_no_model_has(registry: Registry, kept: list[dict[str, object]], model: str) -> None:
    """What is part of keys and of SQL is a model's name, whatever was asked for."""
    with pytest.raises(InvalidReference):
        search(registry, registry.store, Search(model=model))
    with pytest.raises(InvalidReference):
        explain(registry, registry.store, Explain(id=str(kept[0]["prediction_id"]), model=model))


async def test_over_the_admin_port(registry: Registry, kept: list[dict[str, object]]) -> None:
    """The gateway asks a process of its own, and gives what that finds or refuses."""
    async with running(registry=registry) as gateway:
        found = (await gateway.admin.get("/observations", params={"failed": True, "model": "intent"})).json()
        assert [each["outcome"] for each in found["predictions"]] == ["model_error"]
        told = (await gateway.admin.get("/observations/r-1")).json()
        assert told["why"]["prediction"]["request_id"] == "r-1"
        none = await gateway.admin.get("/observations/r-9", params={"since": "1h"})
        assert (none.status_code, none.json()["code"]) == (404, "not_found")
        wrong = await gateway.admin.get("/observations", params={"limit": 1000})
        assert wrong.status_code == 400
