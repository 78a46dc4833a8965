"""Places that archives may be taken from: how the setting writes them."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import urlsplit

from marway.errors import clip

__all__ = ["parse_sources"]

_SCHEMES: Final = ("file", "http", "https")


def parse_sources(value: Any) -> tuple[str, ...]:
    """Return places from a list, a JSON list or a text with commas between them; each ends with a slash.

    Raises:
        ValueError: One is no directory as `file:///…` and no beginning of an address.
    """
    if isinstance(value, str):
        value = json.loads(value) if value.lstrip().startswith("[") else value.split(",")
    places = [str(each).strip() for each in value if str(each).strip()]
    for each in places:
        parts = urlsplit(each)
        absolute = parts.path.startswith("/") and not parts.netloc if parts.scheme == "file" else bool(parts.netloc)
        if parts.scheme not in _SCHEMES or not absolute or parts.query or parts.fragment or ".." in parts.path:
            raise ValueError(
                f"{clip(each, 200)!r} is no place of archives: give a directory as file:///model-store, or the "
                "beginning of an address as https://models.example.com/"
            )
    return tuple(each if each.endswith("/") else each + "/" for each in places)
