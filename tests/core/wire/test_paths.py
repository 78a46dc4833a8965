"""Predict routes are found as a router would find them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Match, Route

from marway.wire.paths import SegmentRoutes

TEMPLATES = ("/predict/{model}", "/predict/{model}/{selector}", "/predictions/{model}", "/explanations/{model}")


async def endpoint(request: object) -> None:
    raise AssertionError


ROUTER = [Route(template, endpoint, methods=["POST"], name=template) for template in TEMPLATES]
SEGMENTS = st.sampled_from(["", "predict", "predictions", "explanations", "x", "a b", "{model}", "é", "."])


def routes() -> SegmentRoutes[str]:
    made: SegmentRoutes[str] = SegmentRoutes()
    for template in TEMPLATES:
        assert made.add("POST", template, template)
    return made


@given(st.lists(SEGMENTS, max_size=5), st.sampled_from(["", "/"]), st.sampled_from(["POST", "GET"]))
def test_the_same_as_a_router(segments: list[str], start: str, method: str) -> None:
    """Whatever the path is, it leads to the handler and the parameters that Starlette's router finds, or to none."""
    path = start + "/".join(segments)
    scope = {"type": "http", "method": method, "path": path, "root_path": ""}
    expected = None
    for route in ROUTER:
        match, child = route.matches(scope)
        if match is Match.FULL:
            expected = route.name, child["path_params"]
            break
    assert routes().find(method, path) == expected


@pytest.mark.parametrize(
    "template",
    ["/v1/models/{model}:predict", "/v2/models/{model}/infer", "/{anything}/x", "/ping", "/a/{x:path}", "/a/b/{c}"],
)
def test_other_kinds_are_left_to_the_router(template: str) -> None:
    """A route whose segments after the first are not all parameters is not taken."""
    made: SegmentRoutes[str] = SegmentRoutes()
    assert not made.add("POST", template, template)
    assert made.find("POST", template) is None
