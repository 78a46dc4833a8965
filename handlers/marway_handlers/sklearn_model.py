"""scikit-learn models: one row of features, or one text, in; what `predict` says out."""

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING or __package__:
    from marway_handlers.marway_handler_base import Failure, ModelHandler, decoded, member
else:  # in an archive, beside this file
    from marway_handler_base import Failure, ModelHandler, decoded, member

DIGITS = 6


class SklearnHandler(ModelHandler):
    """Asks an estimator or a pipeline of scikit-learn, or of a library that has its interface; N rows in one call.

    The archive carries the model as its serialized file, as `joblib.dump` or `pickle` wrote it. Loading it runs what it
    says: it must come from people you trust.

    A row holds a list of numbers (and texts, where the model's columns have them), an object of them by the names of
    the columns that the model was fitted with, or a text for a model that takes texts; bare or under one of ``keys``.
    A classifier answers ``{"label", "score", "scores"}`` with the probability of each class, or ``{"label"}`` where it
    has none; others ``{"value"}`` (a number, or a list where there are several), those that only transform
    ``{"embedding"}``. A row that is no input gets status 400 and ``{"error": "…"}`` as its own answer, one whose answer
    is not finite status 500.
    """

    keys = ("data", "inputs", "instances", "text")

    def load(self, manifest: dict[str, str]) -> Any:
        """Return the estimator."""
        import joblib

        if not manifest.get("serializedFile"):
            raise RuntimeError("the archive's manifest names no serializedFile")
        return joblib.load(self.directory / manifest["serializedFile"])

    def prepare(self) -> None:
        """Read what the model takes and gives."""
        model = self.model
        if not (hasattr(model, "predict") or hasattr(model, "transform")):
            raise RuntimeError(f"the file holds a {type(model).__name__}, which has neither predict nor transform")
        width = getattr(model, "n_features_in_", None)
        self.width = None if width is None else int(width)
        self.columns = [str(name) for name in getattr(model, "feature_names_in_", ())]
        self.classes = [_plain(name) for name in getattr(model, "classes_", ())]
        # A pipeline that begins with a vectoriser knows no number of features: what it takes are texts.
        self.takes_text = self.width is None

    def parse(self, value: Any) -> Any:
        """Return a row's features or its text; a ValueError says what is wrong with it."""
        value = decoded(value, "the body is not UTF-8 text")
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError("the body begins like JSON and is not valid JSON") from None
        if isinstance(value, dict) and not (self.columns and all(name in value for name in self.columns)):
            value = member(value, self.keys)
        if self.takes_text:
            if not isinstance(value, str) or not value.strip():
                raise ValueError("the row is no text")
            return value
        if isinstance(value, dict):
            value = [value[name] for name in self.columns] if self.columns else list(value.values())
        while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
            value = value[0]  # a row as a batch of one
        if not isinstance(value, list) or len(value) != self.width:
            raise ValueError("the row is no list" if not isinstance(value, list) else f"the row has {len(value)} items")
        for each in value:
            if isinstance(each, bool) or not isinstance(each, int | float | str):
                raise ValueError("an item is neither a number nor a text")
            if isinstance(each, float) and not math.isfinite(each):
                raise ValueError("an item is not finite")
        return value

    def accepted(self) -> str:
        """Return what a row may hold."""
        if self.takes_text:
            return 'send one text, plain or as {"text": "..."}'
        named = f", or an object with {', '.join(self.columns[:20])}" if self.columns else ""
        return f"send {self.width} features as a list{named}"

    def answers(self, inputs: list[Any]) -> Iterator[Any]:
        """Return the answer to each row."""
        given = self._given(inputs)
        if not hasattr(self.model, "predict"):
            vectors = self.model.transform(given)
            vectors = vectors.toarray() if hasattr(vectors, "toarray") else vectors
            return (_finite({"embedding": np.asarray(vector).tolist()}) for vector in vectors)
        if self.classes and hasattr(self.model, "predict_proba"):
            return (self._scored(scores) for scores in self.model.predict_proba(given).tolist())
        name = "label" if self.classes else "value"
        return (_finite({name: _plain(value)}) for value in self.model.predict(given))

    def _scored(self, scores: list[float]) -> Any:
        if not all(map(math.isfinite, scores)):
            return Failure("the model's scores are not finite")
        best = max(range(len(scores)), key=scores.__getitem__)
        named = {str(name): round(score, DIGITS) for name, score in zip(self.classes, scores, strict=True)}
        return {"label": self.classes[best], "score": round(scores[best], DIGITS), "scores": named}

    def _given(self, inputs: list[Any]) -> Any:
        """Return the rows as the model was fitted with them: with the names of its columns, if it has any."""
        if self.takes_text:
            return inputs
        if self.columns:
            try:
                import pandas
            except ImportError:  # the model then takes its columns by their order, and scikit-learn warns of that
                pass
            else:
                return pandas.DataFrame(inputs, columns=self.columns)
        numbers = all(not isinstance(each, str) for row in inputs for each in row)
        return np.asarray(inputs, dtype=np.float64 if numbers else object)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _finite(answer: dict[str, Any]) -> Any:
    (value,) = answer.values()
    array = np.asarray(value)
    if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
        return Failure("the model's answer is not finite")
    return answer
