"""What `GET /` of the public port leads to."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.requests import Request

from marway.settings import load_settings
from marway_gateway.app import console_links
from marway_gateway.settings import GatewaySettings
from marway_http.pages.about import About, about_answer


def asked(host: str) -> Request:
    """Return a request to the public port, as it came to 127.0.0.1:8000."""
    headers = [(b"host", host.encode())]
    return Request({"type": "http", "path": "/", "scheme": "http", "server": ("127.0.0.1", 8000), "headers": headers})


@pytest.mark.parametrize(
    ("host", "flags", "link"),
    [
        ("127.0.0.1:8000", {}, "http://127.0.0.1:8001/"),
        ("localhost:8000", {}, "http://localhost:8001/"),
        ("[::1]:8000", {"admin_port": 9001}, "http://[::1]:9001/"),
        ("10.0.0.7:8000", {"admin_host": "10.0.0.7"}, "http://10.0.0.7:8001/"),
        ("10.0.0.7:8000", {}, None),  # the admin port is on loopback alone
        ("models.example.com", {}, None),  # a proxy, whose clients may not get there
        ("127.0.0.1:7000", {}, None),
        ("127.0.0.1:8000", {"console": False}, None),
        ("127.0.0.1:8000", {"admin_port": 0}, None),
    ],
)
def test_the_way_to_the_console(tmp_path: Path, host: str, flags: dict[str, object], link: str | None) -> None:
    """Who asks the port itself is led to the console; nobody is led where they may not get."""
    settings = load_settings(GatewaySettings, registry=str(tmp_path), **flags)
    links = console_links(settings, asked(host))
    assert [each.href for each in links] == ([] if link is None else [link])
    about = About(name="Marway", version="1", description="d", links=links)
    page = about_answer(about, "text/html")[0].decode()
    assert (f'<a href="{link}">{link}</a>' in page) == (link is not None)
