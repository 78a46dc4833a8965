"""Golden examples of a bundle: no server runs when it is packed, so their answers are stated by whoever packs it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from marway.answers.encoding import answer_json
from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument, GoldenExample, Kind, Tolerance, is_json
from marway.bundles import BundleManifest
from marway.errors import InvalidArchive
from marway_archiver.proving.examples import UNSET, Example, input_line

__all__ = ["given_answers"]

_NOT_RUN: Final = "no server was asked when the bundle was packed"
_TENSOR_BACKENDS: Final = ("open-inference", "tensorflow-serving")
_FAILS_FROM: Final = 400


def given_answers(
    manifest: BundleManifest,
    given: Sequence[Example],
    inputs: Sequence[ExampleInput],
    archive_sha256: str,
    tolerance: Tolerance,
) -> GoldenDocument | None:
    """Return the golden document of a bundle's stated answers, None where there are no examples.

    What a response of the Open Inference Protocol says of model, version and id is what a pod will say, whatever
    ``given`` has there: Marway's name and version, and the request's id.

    Raises:
        InvalidArchive: An example has no output, or one that no pod could give.
    """
    if not inputs:
        return None
    examples = []
    for number, (example, sent) in enumerate(zip(given, inputs, strict=True), 1):
        where = f"example {number} ({input_line(sent)})"
        if example.output is UNSET:
            raise InvalidArchive(
                f"{where} has no output: no server is asked when a bundle is packed, so state the answer, as 'output' "
                "of a line of --examples FILE.jsonl"
            )
        if example.status is not None and example.status >= _FAILS_FROM:
            raise InvalidArchive(f"{where}: status {example.status}: the golden examples of a bundle are answered ones")
        output = _as_answered(manifest, sent, example.output)
        try:
            body = output.encode() if isinstance(output, str) else answer_json(output, nonfinite="allow")
        except (TypeError, ValueError, RecursionError) as exc:
            raise InvalidArchive(f"{where}: its output is neither text nor JSON: {exc}") from exc
        kind: Kind = "text" if isinstance(output, str) else "json"
        answer = GoldenAnswer.of(status=example.status or 200, kind=kind, body=body, content_type=None)
        examples.append(GoldenExample(input_sha256=sent.sha256, content_type=sent.content_type, answer=answer))
    return GoldenDocument(
        archive_sha256=archive_sha256,
        source="given",
        tolerance=tolerance,
        examples=tuple(examples),
        batch_reason=_NOT_RUN,
    )


def _as_answered(manifest: BundleManifest, sent: ExampleInput, output: Any) -> Any:
    """Return an output as a pod gives it."""
    if manifest.backend not in _TENSOR_BACKENDS or not isinstance(output, dict) or "outputs" not in output:
        return output
    request: Any = None
    if is_json(sent.content_type):
        try:
            request = json.loads(sent.data)
        except (ValueError, RecursionError):
            return output
    if not isinstance(request, dict) or "inputs" not in request:
        return output
    answer = {"model_name": manifest.name, "model_version": manifest.version}
    if "id" in request:
        answer["id"] = request["id"]
    return answer | {name: each for name, each in output.items() if name not in ("model_name", "model_version", "id")}
