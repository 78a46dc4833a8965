"""Where a server is asked for what: URLs with names of versions in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from yarl import URL

from marway.errors import InvalidRequest, InvalidSettings, clip

__all__ = ["DIRECTORY", "PATH", "VERSION_NAMES", "Addresses", "UrlTemplate", "checked_path", "openai_call"]

VERSION_NAMES: Final = frozenset({"model", "version", "server_name"})
PATH: Final = "path"
DIRECTORY: Final = "directory"

_NAMED: Final = re.compile(r"\{([^{}]*)\}")
_METHODS: Final = frozenset({"DELETE", "GET", "PATCH", "POST", "PUT"})
_OPENAI: Final = "openai/v1/"
_OPENAI_CALLS: Final = frozenset({"chat/completions", "completions", "embeddings", "responses"})
"""What is passed on: servers have more below the same URL by which they are managed."""


@dataclass(frozen=True, slots=True)
class UrlTemplate:
    """A URL with names in braces.

    Attributes:
        method: With which it is asked.
        text: The URL.
        names: Those in it.
    """

    method: str
    text: str
    names: frozenset[str]

    @classmethod
    def parse(cls, setting: str, text: str, *, method: str, names: frozenset[str] = VERSION_NAMES) -> UrlTemplate:
        """Return the template that a setting holds; ``names`` may stand in it, and a method before it.

        Raises:
            InvalidSettings: It is no http or https URL, or has other names in it.
        """
        first, space, rest = text.strip().partition(" ")
        if space and first.upper() in _METHODS:
            method, text = first.upper(), rest.strip()
        found = frozenset(_NAMED.findall(text))
        if unknown := sorted(found - names):
            known = ", ".join(f"{{{name}}}" for name in sorted(names)) or "none"
            raise InvalidSettings(f"{setting} has {{{unknown[0]}}} in it, which is not known here: known are {known}")
        try:
            url = URL(_NAMED.sub("x", text))
            host_named = "{" in text.partition("://")[2].partition("/")[0]
        except ValueError as exc:
            raise InvalidSettings(f"{setting} is no URL: {clip(text, 200)!r}") from exc
        if url.scheme not in ("http", "https") or not url.host or host_named or "{" in _NAMED.sub("", text):
            raise InvalidSettings(f"{setting} has to be a URL such as http://127.0.0.1:3000/…: {clip(text, 200)!r}")
        return cls(method, text, found)

    @property
    def tells_versions_apart(self) -> bool:
        """Whether two versions of one model are asked at two URLs."""
        return not self.names.isdisjoint({"version", "server_name"})

    def url(self, values: Mapping[str, str]) -> URL:
        """Return the URL with these values, quoted; a `/` in `path` stays; before an empty one it goes."""
        text = self.text if values.get(PATH) else self.text.replace(f"/{{{PATH}}}", "")

        def value(found: re.Match[str]) -> str:
            return quote(values.get(found[1], ""), safe="/" if found[1] == PATH else "")

        return URL(_NAMED.sub(value, text), encoded=True)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a server is asked for what; None for what it is not asked.

    Attributes:
        base: Its origin.
        openai: Of OpenAI's API, without a `/` at its end.
        openai_model: What that API calls the model, where that is one for all versions.
    """

    base: URL
    predict: UrlTemplate | None
    openai: URL | None
    openai_model: str | None
    health: URL | None
    ready: UrlTemplate | None
    load: UrlTemplate | None
    unload: UrlTemplate | None


def checked_path(path: str) -> str:
    """Return what follows the version in a caller's path, without a `/` before it.

    Raises:
        InvalidRequest: It leads out of where it begins.
    """
    path = path.strip("/")
    if "\\" in path or any(part in ("", ".", "..") for part in path.split("/") if path):
        raise InvalidRequest(f"the path behind the model leads elsewhere: {clip(path, 80)!r}")
    return path


def openai_call(path: str) -> str | None:
    """Return which call of OpenAI's API a caller's path names, such as `chat/completions`; None for another path.

    Raises:
        InvalidRequest: The API has no such call that is passed on.
    """
    if not path.startswith(_OPENAI):
        return None
    call = path.removeprefix(_OPENAI)
    if call not in _OPENAI_CALLS:
        raise InvalidRequest(f"{clip(call, 80)!r} is not passed on: there are {', '.join(sorted(_OPENAI_CALLS))}")
    return call
