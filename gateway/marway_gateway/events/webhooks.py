"""Who is sent events: a TOML file of webhooks, each with a URL, a secret and what it wants.

::

    [[webhook]]
    name = "retrain"
    url = "https://ci.example.com/hooks/marway"
    secret_file = "/etc/marway/retrain.secret"      # or secret = "whsec_…"
    types = ["dev.marway.model.quality_below_minimum"]
    models = ["intent", "fraud-*"]
"""

from __future__ import annotations

import base64
import binascii
import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from marway.errors import InvalidSettings, clip
from marway.text import did_you_mean
from marway_gateway.followed_file import FollowedFile, Reading
from marway_observations.events.event import TYPES, Event, is_type

__all__ = ["Webhook", "WebhooksFile"]

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = (16, 128)
"""Standard Webhooks asks for 24 to 64; what is far from it is no secret, or no key."""
_WHAT: Final = "the webhooks file"


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{clip(text, 80)!r} cannot be a name: use 1 to 63 lower-case letters, digits, '_' or '-', starting and "
            "ending with a letter or digit"
        )
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{clip(text, 200)!r} is no URL: use one such as https://ci.example.com/hooks/marway")
    if "@" in parts.netloc:
        raise ValueError("it has a name or a password in it, which logs would show: the receiver checks the signature")
    return text


def _type(text: str) -> str:
    if not any(is_type(each, text) for each in TYPES):
        raise ValueError(
            f"{clip(text, 80)!r} is the type of no event: they are {', '.join(TYPES)}; '*' at the end stands for all "
            f"that begin so{did_you_mean(clip(text, 80), TYPES)}"
        )
    return text


def _glob(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._*?\[\]!-]{1,80}", text):
        raise ValueError(f"{clip(text, 80)!r} is no model, nor a pattern of names such as 'fraud-*'")
    return text


class _Section(BaseModel):
    """A `[[webhook]]` as it stands in the file."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(_name)]
    url: Annotated[str, AfterValidator(_url)]
    secret: str | None = None
    secret_file: Path | None = None
    types: Annotated[list[Annotated[str, AfterValidator(_type)]], Field(min_length=1)] = ["*"]
    models: Annotated[list[Annotated[str, AfterValidator(_glob)]], Field(min_length=1)] = ["*"]


class Webhook(BaseModel):
    """One receiver of events.

    Attributes:
        name: What it is called in the log, in metrics and by `marway events`.
        url: Where events are posted.
        keys: What they are signed with. With several each makes a signature, so that a receiver can change its own
            at a time of its choice.
        types: Types of events that it wants; one that ends with '*' stands for all that begin so.
        models: Models whose events it wants, as patterns of names.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    url: str
    keys: Annotated[tuple[bytes, ...], Field(repr=False)]
    types: tuple[str, ...]
    models: tuple[str, ...]

    def wants(self, event: Event) -> bool:
        """Return whether an event is to be sent to it."""
        return event.matches(types=self.types) and any(fnmatchcase(event.subject, each) for each in self.models)


class WebhooksFile(FollowedFile[tuple[Webhook, ...]]):
    """The webhooks in a file, as they are now. While it cannot be used the last ones stay.

    Args:
        path: The file.

    Raises:
        InvalidSettings: It, or a file of secrets that it names, cannot be read, or something in it cannot be.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, self._parsed, what="the webhooks")

    def current(self) -> tuple[Webhook, ...]:
        """Return the webhooks; the same object until they change."""
        return self.value

    def _parsed(self, reading: Reading) -> tuple[Webhook, ...]:
        try:
            document = tomllib.loads(reading.text(self.path, _WHAT))
        except tomllib.TOMLDecodeError as exc:
            raise InvalidSettings(f"{_WHAT} {self.path} is not valid TOML: {exc}") from exc
        sections = document.pop("webhook", [])
        if document or not isinstance(sections, list):
            stray = clip(next(iter(document), "webhook"), 60)
            raise InvalidSettings(f"{_WHAT} {self.path}: {stray!r} is out of place: write [[webhook]] above each")
        found: dict[str, Webhook] = {}
        for number, section in enumerate(sections, 1):
            webhook = self._webhook(number, section, reading)
            if webhook.name in found:
                raise InvalidSettings(f"{_WHAT} {self.path}: two webhooks are called {webhook.name!r}")
            found[webhook.name] = webhook
        return tuple(found.values())

    def _webhook(self, number: int, given: Any, reading: Reading) -> Webhook:
        name = given.get("name") if isinstance(given, dict) else None
        where = f"{_WHAT} {self.path}: webhook {clip(name, 80) if isinstance(name, str) else number}"
        try:
            section = _Section.model_validate(given)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            field = str(first["loc"][0]) if first["loc"] else "webhook"
            known = _Section.model_fields
            meant = "" if field in known else f"; known are {', '.join(known)}{did_you_mean(clip(field, 60), known)}"
            says = clip(first["msg"].removeprefix("Value error, "), 700)
            raise InvalidSettings(f"{where}: {clip(field, 60)}: {says}{meant}") from exc
        if (section.secret is None) == (section.secret_file is None):
            raise InvalidSettings(f"{where}: give it a secret or a secret_file, which its receiver has as well")
        if section.secret is not None:
            reading.secret(self.path, _WHAT)
            keys: tuple[bytes, ...] = (_key(section.secret, f"{where}: secret"),)
        else:
            assert section.secret_file is not None
            file = self.path.parent / section.secret_file
            what = f"the file of secrets that webhook {section.name} of {self.path} names,"
            lines = reading.text(file, what).split()
            reading.secret(file, what)
            keys = tuple(_key(line, f"{where}: the file of secrets {file}") for line in lines)
            if not keys:
                raise InvalidSettings(f"{where}: the file of secrets {file} has no secret in it")
        return Webhook(name=section.name, url=section.url, keys=keys, types=section.types, models=section.models)


def _key(secret: str, where: str) -> bytes:
    """Return the bytes of a secret as Standard Webhooks writes it; a message never says what stands there."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    least, most = _SECRET_BYTES
    if not secret.startswith(_PREFIX) or not least <= len(key) <= most:
        raise InvalidSettings(
            f"{where} is no secret of Standard Webhooks: write whsec_ and 24 to 64 random bytes in base64, such as "
            "`echo whsec_$(head -c 32 /dev/urandom | base64)` makes"
        )
    return key
