"""Model references: names, versions, labels and ids, and how a path segment is told to be one.

The four never overlap, so `/predict/{model}/{x}` and `/predict/{x}` have one meaning each: a label is
upper case, a version is never a label, and names and ids share one name space in the registry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ulid import ULID

from marway.errors import InvalidReference, clip

__all__ = [
    "DEFAULT_LABEL",
    "TENSOR_BACKENDS",
    "Reference",
    "check_backend",
    "check_engine",
    "check_label",
    "check_model_id",
    "check_model_name",
    "check_version",
    "is_label",
    "new_model_id",
    "new_ulid",
    "parse_reference",
    "server_name",
]

DEFAULT_LABEL = "PROD"
"""What a reference without version or label means."""
TENSOR_BACKENDS = frozenset({"open-inference", "tensorflow-serving"})
"""Backends of records whose servers take tensors themselves: requests of tensors reach them as they came, unsplit."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,62}")
_BACKEND = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_NAME_RULE = "1 to 63 letters, digits, '.', '_' or '-', starting and ending with a letter or digit"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a caller asked for, before it is resolved.

    Attributes:
        name: A model name, or a model id when `selector` is None.
        selector: A version or a label, or None for `PROD` of a name or the version an id stands for.
    """

    name: str
    selector: str | None = None

    def __str__(self) -> str:
        return self.name if self.selector is None else f"{self.name}/{self.selector}"


def _check(text: str, pattern: re.Pattern[str], what: str, rule: str) -> str:
    if pattern.fullmatch(text):
        return text
    raise InvalidReference(f"{clip(text, 80)!r} cannot be {what}: use {rule}")


def check_model_name(text: str) -> str:
    """Return ``text`` if it can be a model name, else raise `InvalidReference`."""
    if text.lower().startswith("mv_"):
        raise InvalidReference(
            f"model name {clip(text, 80)!r} starts with 'mv_', which is kept for model ids: choose another"
        )
    return _check(text, _NAME, "a model name", _NAME_RULE)


def check_version(text: str) -> str:
    """Return ``text`` if it can be a version, else raise `InvalidReference`."""
    if _LABEL.fullmatch(text):
        raise InvalidReference(f"version {text!r} looks like a label (all upper case): use a version such as '1.0'")
    rule = "1 to 63 letters, digits, '.', '+', '_' or '-', starting with a letter or digit"
    return _check(text, _VERSION, "a version", rule)


def is_label(text: str) -> bool:
    """Return whether ``text`` has the form of a label."""
    return _LABEL.fullmatch(text) is not None


def check_label(text: str) -> str:
    """Return ``text`` if it can be a label, else raise `InvalidReference`."""
    if is_label(text):
        return text
    meant = f"; did you mean {text.upper()!r}?" if is_label(text.upper()) else ""
    rule = "1 to 32 upper-case letters, digits, '_' or '-', starting with a letter, such as PROD or STG"
    return _check(text, _LABEL, "a label", rule + meant)


def check_model_id(text: str) -> str:
    """Return ``text`` if it can be a model id (made by Marway or the caller's own), else raise `InvalidReference`."""
    return _check(text, _NAME, "a model id", _NAME_RULE)


def check_backend(text: str) -> str:
    """Return ``text`` if it can be the name of a backend, a kind of model server, else raise `InvalidReference`."""
    rule = "1 to 32 lower-case letters, digits or '-', starting and ending with a letter or digit, such as torchserve"
    return _check(text, _BACKEND, "a backend", rule)


def check_engine(text: str) -> str:
    """Return ``text`` if it can be the name of an engine, the backend of a pod, else raise `InvalidReference`."""
    rule = "1 to 32 lower-case letters, digits or '-', starting and ending with a letter or digit, such as native"
    return _check(text, _BACKEND, "an engine", rule)


def new_ulid() -> str:
    """Return a new ULID: 26 characters that sort by creation time (https://github.com/ulid/spec)."""
    return str(ULID())


def new_model_id() -> str:
    """Return a new model id, `mv_` and a ULID."""
    return f"mv_{new_ulid()}"


def parse_reference(text: str) -> Reference:
    """Parse ``MODEL``, ``MODEL/VERSION``, ``MODEL/LABEL`` or ``ID`` as the CLI takes it.

    Raises:
        InvalidReference: A part cannot be what it stands for.
    """
    name, slash, selector = text.partition("/")
    check_model_id(name)
    if not slash:
        return Reference(name)
    if not is_label(selector):
        check_version(selector)
    return Reference(name, selector)


def server_name(model_id: str) -> str:
    """Return the name under which a model server knows the version with this id.

    It is the id, which frees every version from the server's rules for names and default versions. TorchServe takes any
    request with `/token` in it for one of its token API, so an id that would begin a path part so gets a prefix.
    """
    return f"mv_{model_id}" if model_id.lower().startswith("token") else model_id
