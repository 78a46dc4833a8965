"""What a port says of itself at `GET /`: a page for people, JSON for programs.

KServe's v1 clients take `{"status": "alive"}` there for a server that lives, and look at nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ABOUT_CONTENT", "About", "Link", "about_answer", "prefers_page"]

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0; }
h1 small { font-weight: normal; font-size: 1rem; opacity: .65; margin-left: .5rem; }
table { border-collapse: collapse; width: 100%; margin: 1.5rem 0; }
td { padding: .45rem .75rem .45rem 0; border-top: 1px solid color-mix(in srgb, currentColor 18%, transparent); }
td { vertical-align: top; }
td:first-child { white-space: nowrap; width: 12rem; }
pre { padding: .9rem 1rem; border-radius: .4rem; overflow-x: auto; }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { background: color-mix(in srgb, currentColor 7%, transparent); }
"""
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


ABOUT_CONTENT: Final[dict[str, Any]] = {"application/json": {}, "text/html": {"schema": {"type": "string"}}}
"""The kinds of answer, as OpenAPI documents have them."""


class Link(BaseModel):
    """Where to look."""

    model_config = ConfigDict(frozen=True)

    href: str = Field(description="Relative to the address that was asked, or an address.")
    title: str


class About(BaseModel):
    """What answers here, and where to look."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "status": "alive",
                    "name": "Marway gateway",
                    "version": "0.1.0",
                    "description": "Serves models.",
                    "links": [{"href": "docs", "title": "Every route, to read and to try"}],
                }
            ]
        },
    )

    status: Literal["alive"] = "alive"
    name: str
    version: str
    description: str
    links: tuple[Link, ...]
    example: str | None = Field(default=None, description="A command to begin with.")


def about_answer(about: About, accept: str | None) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of an answer: a page where `Accept` prefers that to JSON, else JSON."""
    headers = {"Vary": "Accept", "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    if not prefers_page(accept or "*/*"):
        return about.model_dump_json(exclude_none=True).encode(), {**headers, "Content-Type": "application/json"}
    more = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": _POLICY}
    return _page(about).encode(), {**headers, **more, "Referrer-Policy": "no-referrer"}


def prefers_page(accept: str) -> bool:
    """Return whether HTML is asked for by name, and no less than JSON (RFC 9110 §12.5.1)."""
    wanted: dict[str, float] = {}
    for each in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            wanted[kind] = float(quality)
        except ValueError:
            wanted[kind] = 0.0
    page = max(wanted.get("text/html", 0.0), wanted.get("application/xhtml+xml", 0.0))
    return page > 0 and page >= wanted.get("application/json", 0.0)


def _shown(href: str) -> str:
    return html.escape(href if "://" in href else f"/{href}")


def _page(about: About) -> str:
    rows = "\n".join(
        f'<tr><td><a href="{html.escape(link.href)}">{_shown(link.href)}</a></td>'
        f"<td>{html.escape(link.title)}</td></tr>"
        for link in about.links
    )
    example = "" if about.example is None else f"<pre>{html.escape(about.example)}</pre>\n"
    name, version = html.escape(about.name), html.escape(about.version)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<h1>{name}<small>{version}</small></h1>
<p>{html.escape(about.description)}</p>
{example}<table>
{rows}
</table>
</body>
</html>
"""
