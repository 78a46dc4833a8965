"""Bearer tokens (RFC 6750) as they stand in a file, and telling whether a given one is among them.

One token a line, `#` begins a comment, and a token may have a name: ``ci: 7Yk0…``. A name says in the history who made
a change. Tokens are kept as digests, and never appear in a message.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from marway.errors import InvalidSettings, clip

__all__ = ["Tokens", "bearer", "first_token", "parse_tokens"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TOKEN_MAX: Final = 4096
_SCHEME: Final = "bearer "


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that are accepted.

    Attributes:
        known: sha256 of each token, and its name or None.
    """

    known: tuple[tuple[bytes, str | None], ...] = ()

    def owner(self, token: str) -> tuple[bool, str | None]:
        """Return whether a token is accepted, and its name. Takes as long for a wrong one as for a right one."""
        given = _digest(token)
        found, name = False, None
        for digest, owner in self.known:
            if hmac.compare_digest(digest, given):
                found, name = True, owner
        return found, name

    def __len__(self) -> int:
        return len(self.known)


def parse_tokens(text: str, *, source: str) -> Tokens:
    """Return the tokens of a file, from its content and its name.

    Raises:
        InvalidSettings: A line holds something else; the message says which, and not what.
    """
    return Tokens(tuple((_digest(token), name) for name, token in _lines(text, source)))


def first_token(text: str, *, source: str) -> str:
    """Return the first token of a file: the one that a client sends.

    Raises:
        InvalidSettings: There is none, or a line holds something else.
    """
    lines = _lines(text, source)
    if not lines:
        raise InvalidSettings(f"{source} has no token in it: write one on a line of its own")
    return lines[0][1]


def bearer(authorization: str | None) -> str | None:
    """Return the token of an `Authorization` header, or None when it has none."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    token = authorization[len(_SCHEME) :].strip()
    return token if len(token) <= _TOKEN_MAX and _TOKEN.fullmatch(token) else None


def _lines(text: str, source: str) -> list[tuple[str | None, str]]:
    found: list[tuple[str | None, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        name, colon, token = entry.rpartition(":")
        name, token = name.strip(), token.strip()
        if not _TOKEN.fullmatch(token) or len(token) > _TOKEN_MAX or (colon and not _NAME.fullmatch(name)):
            raise InvalidSettings(
                f"{clip(source, 300)}, line {number}: neither TOKEN nor NAME: TOKEN (a token has letters, digits and "
                "'-._~+/', '=' at its end)"
            )
        found.append((name or None, token))
    return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
