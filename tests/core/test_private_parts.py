"""Libraries whose private parts are used, in versions that have them and in one that has not."""

from __future__ import annotations

import httptools
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server

from marway.errors import InvalidSettings
from marway.private_parts import HTTP_CYCLE, HTTP_PARSER, HTTP_PROTOCOL, HTTP_SERVER, check_private_parts


@pytest.mark.parametrize(
    ("library", "owner", "names"),
    [
        ("uvicorn", HttpToolsProtocol, HTTP_PROTOCOL),
        ("uvicorn", RequestResponseCycle, HTTP_CYCLE),
        ("uvicorn", Server, HTTP_SERVER),
        ("httptools", httptools.HttpRequestParser, HTTP_PARSER),
    ],
)
def test_what_is_installed_has_them(library: str, owner: type, names: tuple[str, ...]) -> None:
    """Nothing that Marway uses is missing in the versions that are installed."""
    check_private_parts(library, owner, names)


def test_what_is_missing_is_named() -> None:
    """A version without a method or an attribute is refused by name, with the versions that will do."""

    class Older:
        def __init__(self) -> None:
            self.cycle = self.flow = None

        def _get_upgrade(self) -> None: ...

    with pytest.raises(InvalidSettings) as refused:
        check_private_parts("uvicorn", Older, ("_get_upgrade", "_start_asgi_task", "asgi_version", "cycle", "flow"))
    said = str(refused.value)
    assert "whose Older has no _start_asgi_task, asgi_version, which Marway uses" in said
    assert "pip install 'uvicorn" in said
