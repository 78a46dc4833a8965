"""Two whole answers to one request, as they travelled, compared row by row.

Plain functions of what they are given, so that they can run in another process (`marway_gateway.conversion`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast, get_args

from marway.answers.bodies import document_rows
from marway.answers.fields import Fields
from marway.answers.golden import GoldenAnswer, Kind, is_json, mime_type
from marway.answers.pairs import Pair, compare_pair
from marway.wire.envelope import ROWS_CONTENT_TYPE, decode_answers
from marway_gateway.observe.open_inference_json import plain_response
from marway_http.tensors.rows import JSON

__all__ = ["AnswerBody", "Compared", "compare_bodies"]

_FIELDS_MAX: Final = 50
_LOOKED_INTO: Final = frozenset({"json", "tensor"})
_BINARY: Final = ("image/", "audio/", "video/", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class AnswerBody:
    """An answer: its status, its bytes, and its media type as observations have it."""

    status: int
    body: bytes
    media: str | None


@dataclass(slots=True)
class Compared:
    """How a version's answer to a request compares with the base's.

    Attributes:
        rows: How many rows it has: one, but in the protocols of rows.
        failed, base_failed: Whether it, or a row of it, is a failure.
        finite, base_finite: Whether all its numbers are; None where it has none that could be looked at.
        agrees: Whether both decide alike, in the row that stands for the request; None where one failed.
        difference: The first difference in words, within the tolerance; None where they are the same.
        shape: How fields or types differ; None where they do not.
        decisions: Both decisions, where they differ.
        fields: The fields that differ.
        base_fields, candidate_fields: Fields and types that the answers have.
    """

    rows: int
    failed: bool
    base_failed: bool
    finite: bool | None
    base_finite: bool | None
    agrees: bool | None = None
    difference: str | None = None
    shape: str | None = None
    decisions: str | None = None
    fields: tuple[str, ...] = ()
    base_fields: Fields | None = None
    candidate_fields: Fields | None = None


def compare_bodies(base: AnswerBody, candidate: AnswerBody, decision: str | None, row: int) -> Compared:
    """Return how a candidate's answer compares with the base's.

    Args:
        base: What the caller got.
        candidate: What the copy got.
        decision: JMESPath of what decides in an answer, where the version says it.
        row: Any number; by its remainder it says which row stands for the request. So a request of many rows is not
            taken to disagree because one of them does, and over many requests the part is right.
    """
    before, after = _rows_of(base), _rows_of(candidate)
    pairs = [compare_pair(one, other, decision=decision) for one, other in zip(before, after, strict=False)]
    compared = Compared(
        rows=len(before),
        failed=any(map(_fails, after)),
        base_failed=any(map(_fails, before)),
        finite=_finite(after, [pair.nonfinite for pair in pairs]),
        base_finite=_finite(before, [pair.base_nonfinite for pair in pairs]),
    )
    if compared.failed or compared.base_failed:
        return compared
    compared.base_fields, compared.candidate_fields = _fields_of(before), _fields_of(after)
    if len(before) != len(after):
        compared.agrees = False
        compared.shape = compared.difference = f"{len(before)} answers are now {len(after)}"
        return compared
    chosen = _chosen(before, after, decision, row)
    compared.agrees, compared.decisions = not chosen.decides_otherwise, chosen.decisions
    compared.difference = _first([pair.difference for pair in pairs])
    compared.shape = _first([pair.shape for pair in pairs])
    compared.fields = _fields_that_differ(pairs)
    return compared


def _rows_of(answer: AnswerBody) -> list[GoldenAnswer]:
    """Return the answers to a request's rows: of an envelope, of v1 or v2, or the only one."""
    body, media = answer.body, answer.media
    if mime_type(media) == ROWS_CONTENT_TYPE:
        try:
            return [
                GoldenAnswer.of(
                    status=each.status, kind=_kind_of(each.kind), body=each.body, content_type=each.content_type
                )
                for each in decode_answers(body)
            ] or [_UNREADABLE]
        except ValueError:
            return [_UNREADABLE]
    plain = plain_response(body, media) if media is not None else None  # binary tensors
    if plain is not None:
        body, media = plain, JSON
    kind: Kind = "json" if is_json(media) else "text" if _is_text(body, media) else "bytes"
    return [GoldenAnswer.of(status=answer.status, kind=kind, body=body, content_type=media)]


def _chosen(before: Sequence[GoldenAnswer], after: Sequence[GoldenAnswer], decision: str | None, row: int) -> Pair:
    """Return how the two compare in the row that stands for the request: of many that came one by one, or in one."""
    if len(before) > 1 or before[0].kind != "json" or after[0].kind != "json":
        return compare_pair(before[row % len(before)], after[row % len(before)], decision=decision)
    ours, theirs = document_rows(before[0].value), document_rows(after[0].value)
    if len(ours) != len(theirs) or len(ours) == 1:
        return compare_pair(before[0], after[0], decision=decision)
    place = row % len(ours)
    one, other = (
        GoldenAnswer(status=answer.status, kind="json", content_type=answer.content_type, value=rows[place])
        for answer, rows in ((before[0], ours), (after[0], theirs))
    )
    return compare_pair(one, other, decision=decision)


_UNREADABLE: Final = GoldenAnswer(status=502, kind="error", value="the answers to the rows cannot be read")


def _kind_of(kind: str) -> Kind:
    return cast("Kind", kind) if kind in get_args(Kind) else "bytes"


def _is_text(body: bytes, media: str | None) -> bool:
    if mime_type(media).lower().startswith(_BINARY):
        return False
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fails(answer: GoldenAnswer) -> bool:
    return answer.kind == "error" or answer.status >= 400


def _finite(rows: Sequence[GoldenAnswer], places: Sequence[str | None]) -> bool | None:
    if not any(each.kind in _LOOKED_INTO for each in rows):
        return None
    return all(place is None for place in places)


def _fields_of(rows: Sequence[GoldenAnswer]) -> Fields:
    fields = Fields()
    for each in rows:
        fields.add(each)
    return fields


def _fields_that_differ(pairs: Sequence[Pair]) -> tuple[str, ...]:
    found = dict.fromkeys(name for pair in pairs for name in pair.fields)
    return tuple(name or "the whole answer" for name in found)[:_FIELDS_MAX]


def _first(texts: Sequence[str | None]) -> str | None:
    return next((text for text in texts if text is not None), None)
