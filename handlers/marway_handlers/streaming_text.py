"""Streaming text classification: one text a row in, a line for each of its sentences out, as soon as it is classified.

Publish the version with ``{"serving": {"streaming": true}}`` in its record.
"""

import json
import re
from typing import TYPE_CHECKING, Any

import torch
from ts.context import Context
from ts.handler_utils.utils import send_intermediate_predict_response

if TYPE_CHECKING or __package__:
    from marway_handlers.marway_handler_base import (
        TEXT_KEYS,
        Classifier,
        one_text,
        report_nonfinite,
        row_value,
        set_content_type,
    )
else:  # in an archive, beside this file
    from marway_handler_base import TEXT_KEYS, Classifier, one_text, report_nonfinite, row_value, set_content_type

CONTENT_TYPE = "application/x-ndjson"
MAX_CHARACTERS = 200_000
SENTENCE = re.compile(r"[^.!?。！？\n]*[.!?。！？\n]+|[^.!?。！？\n]+")


class StreamingTextClassifier(Classifier):
    """Classifies the sentences of a text one after another, with an eager-mode model.

    The archive carries what ``text_classifier`` takes, so one model serves both:

    - a model file with one ``nn.Module`` class that is built without arguments, whose ``encode(texts)`` gives a tuple
      of tensors and whose ``forward(*encoded)`` gives logits of shape (number of texts, number of labels);
    - a serialized file with its ``state_dict``;
    - ``labels.json``: a list of the labels, in the order of the logits.

    A row that is not a text gets status 400 and ``{"error": "…"}`` as its own answer; its neighbours are not touched.
    """

    keys = TEXT_KEYS

    def handle(self, data: list[dict[str, Any]], context: Context) -> list[str | dict[str, Any]]:
        """Answer each row with lines of JSON: one a sentence, then one for the whole text.

        A row is a dict; its text is under ``data`` or ``body``, else under one of ``keys``, else its only value. The
        lines of a sentence are sent as they are made when there is one row, as there is in a stream; the last is
        returned. Several rows get all their lines at once.

        Returns:
            ``{"sentence": str, "start": int, "end": int, "label": str, "score": float}`` a sentence, with its place in
            the text in characters, then ``{"sentences": int, "label": str, "score": float, "scores": {label: float}}``
            with the mean of their probabilities, the best three first; ``{"error": str}`` with status 400 for a row
            that holds no text. A sentence whose scores are no numbers (NaN) has ``error`` for its label and score, and
            so has its text.
        """
        answers: list[str | dict[str, Any]] = []
        for index, row in enumerate(data):
            try:
                text = one_text(row_value(row, self.keys), self.keys, MAX_CHARACTERS)
            except ValueError as error:  # noqa: PERF203 - a row fails alone
                answers.append(self.refused(error, context, index))
                set_content_type(context, index, "application/json")
            else:
                set_content_type(context, index, CONTENT_TYPE)
                answers.append(self._lines(text, context, index, send=len(data) == 1))
        return answers

    def _lines(self, text: str, context: Context, index: int, *, send: bool) -> str:
        """Classify the sentences of a text, row ``index``; return the lines that were not sent."""
        unsent: list[str] = []
        error: dict[str, str] = {}
        total = torch.zeros(len(self.labels))
        sentences = [match for match in SENTENCE.finditer(text) if match.group().strip()]
        for match in sentences:
            sentence = match.group().strip()
            start = match.start() + match.group().index(sentence)
            probabilities = self.probabilities([sentence])
            place = {"start": start, "end": start + len(sentence)}
            if bool(torch.isfinite(probabilities).all()):
                total += probabilities[0]
                (answer,) = self.answers_of(probabilities)
                line = _line({"sentence": sentence, **place, "label": answer["label"], "score": answer["score"]})
            else:
                error = {"error": "the model's scores are not finite"}
                line = _line({"sentence": sentence, **place, **error})
                report_nonfinite(context, index)
            if send:
                send_intermediate_predict_response([line], context.request_ids, "Intermediate", 200, context)
            else:
                unsent.append(line)
        if error:
            return "".join([*unsent, _line({"sentences": len(sentences), **error})])
        mean = total / len(sentences)
        (answer,) = self.answers_of(mean[None])
        return "".join([*unsent, _line({"sentences": len(sentences), **answer})])


def _line(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False) + "\n"
