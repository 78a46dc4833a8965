"""What is taken out before anything of a prediction is kept: `observe_redact`, as serving settings have it.

An entry is `client`, `header:NAME`, or the JMESPath of a field that can be taken out: names, `[0]`, `[1:3]`, `[*]`,
`[]`, `*` and `[?…]`, but nothing that computes. What begins with `input.` or `output.` is taken out of what callers
send or get alone, `input` and `output` stand for the whole.

A path is looked for **everywhere** in a document, not only at its top, as each surface wraps rows in its own way; also
in JSON within texts and base64 values. It takes the data of a tensor of that name, and the fields of forms. A body that
cannot be read as JSON or a form may hold anything: there is no redacted form of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.visitor import TreeInterpreter

from marway.errors import clip
from marway.redaction.bodies import redacted_body
from marway.redaction.documents import Step

__all__ = ["Redaction", "Side", "check_redaction", "redaction_of"]

Side = Literal["input", "output"]

_HEADER: Final = "header:"
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_SIDES: Final[tuple[Side, ...]] = ("input", "output")


@dataclass(frozen=True)
class Redaction:
    """What is taken out before anything is kept.

    Attributes:
        client: Whether nobody is told who asked.
        headers: Names of headers of which nothing is kept, in lower case.
        wholes: Sides of which nothing is kept.
        paths: What is taken out of a side's documents.
    """

    client: bool
    headers: frozenset[str]
    wholes: frozenset[Side]
    paths: dict[Side, tuple[tuple[Step, ...], ...]]

    def body(self, side: Side, data: bytes, content_type: str | None) -> bytes | None:
        """Return a body without what is taken out, or None where nothing of it may be kept.

        Args:
            side: Whether callers sent or got it.
            data: The body.
            content_type: Its content type, or None where nobody said it.
        """
        if side in self.wholes:
            return None
        paths = self.paths[side]
        return redacted_body(data, content_type, paths) if paths else data

    @property
    def keeps_errors(self) -> bool:
        """Whether answers that tell of an error may be kept: they may quote what they were sent."""
        return not self.paths["input"] and "input" not in self.wholes


def check_redaction(expressions: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries of `observe_redact`, all of which can be taken out.

    Raises:
        ValueError: One cannot; the message says which, and why.
    """
    redaction_of(expressions)
    return expressions


@lru_cache(maxsize=1000)
def redaction_of(expressions: tuple[str, ...]) -> Redaction:
    """Return what the entries of `observe_redact` take out.

    Raises:
        ValueError: One is nothing that can be taken out; the message says which, and why.
    """
    client, headers, wholes = False, set(), set()
    paths: dict[Side, list[tuple[Step, ...]]] = {"input": [], "output": []}
    for text in expressions:
        if text == "client":
            client = True
        elif text.startswith(_HEADER):
            headers.add(_header(text))
        else:
            steps = _steps_of(text)
            named = next((side for side in _SIDES if steps[0] == ("field", side)), None)
            if named is not None and len(steps) == 1:
                wholes.add(named)
            for side in _SIDES if named is None else (named,):
                paths[side].append(steps)  # a document may have a field `input` or `output` itself
            if named is not None and len(steps) > 1:
                paths[named].append(steps[1:])
    return Redaction(client, frozenset(headers), frozenset(wholes), {side: tuple(paths[side]) for side in _SIDES})


def _header(text: str) -> str:
    name = text.removeprefix(_HEADER)
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{clip(text, 100)!r} names no header: write header:NAME, such as header:x-request-group-id")
    return name.lower()


def _steps_of(text: str) -> tuple[Step, ...]:
    try:
        parsed = jmespath.compile(text).parsed
    except JMESPathError as exc:
        raise ValueError(f"{clip(text, 100)!r} is no JMESPath: {clip(' '.join(str(exc).split()), 200)}") from exc
    found = tuple(_steps(parsed, text))
    if not found:
        raise ValueError(f"{clip(text, 100)!r} is everything: keep no bodies at all with `observe` metadata instead")
    return found


def _steps(node: dict[str, Any], text: str) -> Iterable[Step]:
    """Yield the steps of a parsed expression, from the document's top to what it takes out."""
    kind, children = node["type"], node["children"]
    if kind == "field":
        yield "field", node["value"]
    elif kind == "index":
        yield "index", node["value"]
    elif kind == "slice":
        yield "slice", slice(*children)
    elif kind in ("subexpression", "index_expression"):
        for child in children:
            yield from _steps(child, text)
    elif kind == "flatten":
        yield from _steps(children[0], text)
        yield "flatten", None
    elif kind == "projection":
        left = list(_steps(children[0], text))
        yield from left
        if not left or left[-1][0] not in ("slice", "flatten"):  # which are its elements already
            yield "each", None
        yield from _steps(children[1], text)
    elif kind == "value_projection":
        yield from _steps(children[0], text)
        yield "values", None
        yield from _steps(children[1], text)
    elif kind == "filter_projection":
        yield from _steps(children[0], text)
        condition, interpreter = children[2], TreeInterpreter()

        def holds(element: object) -> bool:
            try:
                return interpreter.visit(condition, element) not in (None, False, "", [], {})
            except JMESPathError:  # a function was given what it does not take: rather too much than too little
                return True

        yield "filter", holds
        yield from _steps(children[1], text)
    elif kind not in ("identity", "current"):
        raise ValueError(
            f"{clip(text, 100)!r} names no field that can be taken out: give a path of names, [0], [*], * and [?…], "
            "such as user.email or instances[*].email"
        )
