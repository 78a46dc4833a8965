"""What a copy tells: compared with the base's answer, counted as evidence and for the report, and kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from marway.redaction import redaction_of
from marway.resolve.resolved import Resolved
from marway.serving import ServingSettings
from marway.shadow.counts import Example, Kind, ShadowCounts, count_name
from marway.traffic import Traffic
from marway.wire.headers import REQUEST_ID
from marway.wire.model_run import ModelRun
from marway_gateway.conversion.converters import Converters
from marway_gateway.observe.bodies import drawn
from marway_gateway.observe.open_inference_json import media_type_of
from marway_gateway.observe.prediction_id import new_prediction_id
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from marway_gateway.traffic.evidence.tally import Side, Tally
from marway_gateway.traffic.shadow.comparing import AnswerBody, Compared, compare_bodies
from marway_gateway.traffic.shadow.counting import Run, ShadowBook
from marway_gateway.traffic.shadow.sending import Came
from marway_http.channel import HeaderBlock
from marway_http.tensors.requests import Rendering, rendered

__all__ = ["Copied", "CopyJudge", "TallyOf"]

TallyOf = Callable[[str, str, Traffic], Tally]
"""Gives what counts the evidence on the version that a model's label may move to."""

_INLINE_BYTES: Final = 4 * 1024
"""Answers that are compared where they are, in a fraction of a millisecond; larger ones in another process."""
_DECIDED: Final = frozenset({"classification", "regression"})


class Copied(NamedTuple):
    """A request that was copied, and what the base made of it."""

    info: RequestInfo
    base: Resolved
    version: Resolved
    traffic: Traffic
    status: int
    answer: AnswerBody | None
    rendering: Rendering | None


class CopyJudge:
    """Judges copies.

    Args:
        book: Counts for the report.
        tally: Gives what counts as evidence.
        telemetry: Keeps observations.
        converters: Compare large answers: processes of their own, so that no caller's request waits for one.
    """

    def __init__(self, book: ShadowBook, tally: TallyOf, telemetry: Telemetry, converters: Converters) -> None:
        self._book = book
        self._tally = tally
        self._telemetry = telemetry
        self._converters = converters

    def dropped(self, copied: Copied, reason: str) -> None:
        """Count a copy that told nothing."""
        count_name(self._run(copied).of(copied.version.record.version).dropped, reason)

    async def judge(self, copied: Copied, came: Came, *, sent: bytes, row: int) -> None:
        """Take in what became of a copy.

        Args:
            copied: The request, with the base's answer.
            came: The version's.
            sent: The body that it was given.
            row: As `compare_bodies` has it.
        """
        info = self._observed(copied, came, sent)
        compared = await self._compared(copied, came, row)
        run = self._run(copied)
        base_run, own_run = ModelRun.parse(copied.info.run), ModelRun.parse(came.run)
        base_failed = copied.status >= 400 or (compared is not None and compared.base_failed)
        failed = came.reply is None or came.status >= 400 or (compared is not None and compared.failed)
        finite, base_finite = own_run.finite, base_run.finite
        if compared is not None:
            finite = compared.finite if compared.finite is not None else finite
            base_finite = compared.base_finite if compared.base_finite is not None else base_finite
        base = Side(base_failed, base_finite, base_run.model_s)
        side = Side(failed, finite, own_run.model_s)
        shape_differs = None if compared is None else run.shape.differs(compared)
        disagrees = None if compared is None or compared.agrees is None else not compared.agrees
        traffic = copied.traffic
        record = copied.base.record
        if traffic.candidate == copied.version.record.version and copied.base.label is not None:
            tally = self._tally(record.name, copied.base.label, traffic)
            tally.pair(traffic.step, base, side, shape_differs=shape_differs, disagrees=disagrees)
        counts = run.of(copied.version.record.version)
        _count(counts, base, side, compared, shape_differs)
        _count_pair(counts, copied, came, compared, info, shape_differs)
        if info.observe == "bodies" and came.body is not None and came.reply is not None:
            info.output, info.output_headers = await self._output(copied, came.reply.header_block, came.body)
        self._telemetry.copied(info)

    def _run(self, copied: Copied) -> Run:
        record, label = copied.base.record, copied.base.label or ""
        return self._book.run(record.name, label, record.version, copied.traffic)

    async def _compared(self, copied: Copied, came: Came, row: int) -> Compared | None:
        """Return how the two answers compare; None where one failed, or is not there whole."""
        if copied.answer is None or came.body is None or came.reply is None:
            return None
        answer = AnswerBody(came.status, came.body, media_type_of(came.reply.header_block.text))
        decision = _decision_of(copied.base.serving)
        if len(answer.body) + len(copied.answer.body) <= _INLINE_BYTES:
            return compare_bodies(copied.answer, answer, decision, row)
        return await self._converters.apart(compare_bodies, copied.answer, answer, decision, row)

    def _observed(self, copied: Copied, came: Came, sent: bytes) -> RequestInfo:
        """Return what is kept of the copy: the request it is a copy of, with a prediction id of its own."""
        of, version = copied.info, copied.version
        info = RequestInfo(method=of.method, path=of.path, ids=of.ids)
        info.surface, info.client, info.role = of.surface, of.client, "shadow"
        info.model, info.version, info.model_id = version.record.name, version.record.version, version.record.id
        info.label, info.serving, info.pod, info.attempts = version.label, version.serving, came.pod, 1
        info.prediction_id, info.observe = new_prediction_id(), drawn(version.serving)
        info.status, info.run, info.pod_s = came.status, came.run, came.pod_s
        info.request_bytes, info.response_bytes = len(sent), len(came.body or b"")
        if came.error is not None:
            info.failed(came.error)
        elif came.status >= 400:
            info.outcome = "model_error"
        if info.observe == "bodies":
            info.headers, info.input_media = of.headers, of.input_media
            info.input = of.input if of.input is not None or copied.rendering is not None else sent
            if came.reply is not None and came.body is None:
                info.bodies = "streamed"
        return info

    async def _output(self, copied: Copied, headers: HeaderBlock, body: bytes) -> tuple[bytes | None, bytes]:
        """Return what the caller would have got, and the lines of its headers."""
        if copied.rendering is None:
            return body, headers.text
        render, count = copied.rendering
        try:
            data, content = await self._converters.apart(rendered, render, body, count, copied.version.record)
        except Exception:  # a failure of a row, or what the protocol cannot carry: the caller would have got an error
            return None, b""
        return data, b"".join(b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in content)


def _decision_of(serving: ServingSettings) -> str | None:
    """Return where the version's own rule of quality finds its prediction; None where it has none that says it."""
    paths = [rule.prediction for rule in serving.quality if rule.kind in _DECIDED and rule.name != "auc"]
    return next((path for path in paths if path != "@"), None)


def _count(counts: ShadowCounts, base: Side, side: Side, compared: Compared | None, shape_differs: bool | None) -> None:
    counts.answered += 1
    counts.failed += side.failed
    counts.base_failed += base.failed
    counts.nonfinite += side.finite is False
    counts.base_nonfinite += base.finite is False
    if side.model_s is not None:
        counts.model_s.add(side.model_s)
    if base.model_s is not None:
        counts.base_model_s.add(base.model_s)
    if side.failed or base.failed:
        return
    if compared is None:
        counts.not_comparable += 1
        return
    counts.compared += 1
    counts.rows += compared.rows
    counts.equal += compared.difference is None
    counts.agreed += compared.agrees is True
    counts.shape_differs += shape_differs is True
    for name in compared.fields:
        count_name(counts.fields, name)


def _count_pair(
    counts: ShadowCounts,
    copied: Copied,
    came: Came,
    compared: Compared | None,
    info: RequestInfo,
    shape_differs: bool | None,
) -> None:
    """Note a difference and the request as its example; values are told where bodies are kept as they are."""
    settings = (copied.base.serving, copied.version.serving)
    quotable = all(each.observe == "bodies" and not each.observe_redact for each in settings)
    if came.reply is None or came.status >= 400 or (compared is not None and compared.failed):
        error = came.error.message if came.error is not None and quotable else f"status {came.status}"
        count_name(counts.errors, error)
        if copied.status >= 400:
            return
        kind: Kind = "failed"
        text: str | None = error
    elif compared is None or compared.difference is None:
        return
    elif shape_differs:
        kind, text = "shape", compared.shape
        count_name(counts.shapes, compared.shape or "")
    elif compared.agrees is False:
        kind, text = "decision", compared.decisions
        if quotable and compared.decisions is not None:
            count_name(counts.decisions, compared.decisions)
    else:
        kind, text = "value", compared.difference
    hidden = any(REQUEST_ID in redaction_of(each.observe_redact).headers for each in settings if each.observe_redact)
    counts.note(
        Example(
            at=time.time(),
            kind=kind,
            request_id=None if hidden else copied.info.request_id,
            base_prediction_id=copied.info.prediction_id if copied.info.observe != "off" else None,
            prediction_id=info.prediction_id if info.observe != "off" else None,
            text=text if quotable else None,
        )
    )
