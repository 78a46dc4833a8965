"""Hugging Face models: one text or picture a row in; labels, entities, a vector or a text out, by transformers."""

import base64
import io
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING or __package__:
    from marway_handlers.marway_handler_base import TEXT_KEYS, Failure, ModelHandler, one_text, unwrapped
else:  # in an archive, beside this file
    from marway_handler_base import TEXT_KEYS, Failure, ModelHandler, one_text, unwrapped

DIGITS = 6
NEW_TOKENS = 128
PICTURES = ("PNG", "JPEG")
CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "text-generation": "AutoModelForCausalLM",
    "image-classification": "AutoModelForImageClassification",
    "embedding": "AutoModel",
}
"""What a directory may be served for, and the class of transformers that reads it."""


class HuggingFaceHandler(ModelHandler):
    """Runs a model that `save_pretrained` wrote, N rows in one forward pass, padded and masked.

    The archive carries that directory's files at its root (no code of its own: `trust_remote_code` is off), and
    `huggingface.json` with ``{"task": …}``, one of ``CLASSES``.

    A row holds a text, plain or as JSON under one of ``keys``, or for `image-classification` a PNG or JPEG picture.
    The answers: ``{"label", "score", "scores"}``; ``{"entities": [{"label", "score", "start", "end", "text"}]}``, with
    places in characters; ``{"text"}``, chosen greedily, of at most `max_new_tokens` (of `generation_config.json`, else
    128); ``{"embedding"}``, the mean over the tokens, of length 1. A row that is no input gets status 400 and
    ``{"error": "…"}`` as its own answer, one whose numbers are not finite status 500.
    """

    keys = (*TEXT_KEYS, "image", "b64")

    def load(self, manifest: dict[str, str]) -> Any:
        """Return the model, on the handler's device."""
        import transformers

        self.task = str(json.loads((self.directory / "huggingface.json").read_text(encoding="utf-8"))["task"])
        if self.task not in CLASSES:
            raise RuntimeError(f"huggingface.json: {self.task!r} is none of {', '.join(CLASSES)}")
        place, options = str(self.directory), {"local_files_only": True, "trust_remote_code": False}
        if self.task == "image-classification":
            self.processor: Any = transformers.AutoImageProcessor.from_pretrained(place, **options)
        else:
            self.processor = transformers.AutoTokenizer.from_pretrained(place, **options)
            if self.processor.pad_token is None:
                self.processor.pad_token = self.processor.eos_token
            if self.task == "text-generation":
                self.processor.padding_side = "left"  # what is generated follows the text, not its padding
        return getattr(transformers, CLASSES[self.task]).from_pretrained(place, **options).to(self.device).eval()

    def prepare(self) -> None:
        """Read the labels, and the longest text that the model takes."""
        config = self.model.config
        labels = getattr(config, "id2label", None) or {}
        self.labels = [str(labels[place]) for place in sorted(labels)]
        self.several = getattr(config, "problem_type", None) == "multi_label_classification"
        most = getattr(config, "max_position_embeddings", None)
        known = getattr(self.processor, "model_max_length", None)
        lengths = [each for each in (most, known) if isinstance(each, int) and 0 < each < 1_000_000]
        self.most_tokens = min(lengths, default=None)
        if self.task == "token-classification" and not self.processor.is_fast:
            raise RuntimeError("the directory has no tokenizer.json, which says where in the text a token is")

    def parse(self, value: Any) -> Any:
        """Return a row's text or picture; a ValueError says what is wrong with it."""
        if self.task != "image-classification":
            return one_text(value, self.keys)
        from PIL import Image

        if isinstance(value, dict | list):
            value = unwrapped(value, self.keys, (dict, str))
        if isinstance(value, str):
            try:
                value = base64.b64decode(value, validate=True)
            except ValueError:
                raise ValueError("the text is not the base64 of a picture") from None
        if not isinstance(value, bytes | bytearray):
            raise ValueError("the row is no picture")
        try:
            with Image.open(io.BytesIO(bytes(value)), formats=PICTURES) as picture:
                return picture.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"the picture cannot be read ({type(error).__name__})") from None

    def accepted(self) -> str:
        """Return what a row may hold."""
        if self.task == "image-classification":
            return "send a PNG or JPEG picture, or its base64 in JSON"
        return 'send one text: plain, as a JSON string, or as {"text": "..."}'

    @torch.inference_mode()
    def answers(self, inputs: list[Any]) -> Iterator[Any]:
        """Return the answer to each row."""
        if self.task == "image-classification":
            return self._labelled(
                self.model(**self.processor(images=inputs, return_tensors="pt").to(self.device)).logits
            )
        cut: dict[str, Any] = {} if self.most_tokens is None else {"truncation": True, "max_length": self.most_tokens}
        places = self.task == "token-classification"
        encoded = self.processor(inputs, return_tensors="pt", padding=True, return_offsets_mapping=places, **cut)
        offsets = encoded.pop("offset_mapping") if places else None
        encoded = encoded.to(self.device)
        if self.task == "text-generation":
            return self._generated(encoded)
        output = self.model(**encoded)
        if self.task == "text-classification":
            return self._labelled(output.logits)
        if offsets is not None:
            return self._entities(output.logits, offsets, encoded["attention_mask"].cpu(), inputs)
        mask = encoded["attention_mask"].unsqueeze(-1)
        mean = (output.last_hidden_state.float() * mask).sum(1) / mask.sum(1)
        return self._vectors(torch.nn.functional.normalize(mean, dim=-1).cpu())

    def _labelled(self, logits: torch.Tensor) -> Iterator[Any]:
        logits = logits.float().cpu()
        for scores in (logits.sigmoid() if self.several else logits.softmax(-1)).tolist():
            if not all(map(math.isfinite, scores)):
                yield Failure("the model's scores are not finite")
                continue
            named = {label: round(score, DIGITS) for label, score in zip(self.labels, scores, strict=True)}
            best = max(named, key=named.__getitem__)
            yield {"label": best, "score": named[best], "scores": named}

    def _entities(
        self, logits: torch.Tensor, offsets: torch.Tensor, mask: torch.Tensor, texts: list[str]
    ) -> Iterator[Any]:
        for scores, places, kept, text in zip(logits.float().softmax(-1).cpu(), offsets, mask, texts, strict=True):
            if not bool(torch.isfinite(scores[kept.bool()]).all()):
                yield Failure("the model's scores are not finite")
                continue
            found: list[dict[str, Any]] = []
            for each, (start, end), real in zip(scores, places.tolist(), kept.tolist(), strict=True):
                label = self.labels[int(each.argmax())]
                if not real or start == end or label == "O":
                    continue
                found.append(
                    {
                        "label": label,
                        "score": round(float(each.max()), DIGITS),
                        "start": start,
                        "end": end,
                        "text": text[start:end],
                    }
                )
            yield {"entities": found}

    def _generated(self, encoded: Any) -> Iterator[Any]:
        config = self.model.generation_config
        most = getattr(config, "max_new_tokens", None) or NEW_TOKENS
        length = encoded["input_ids"].shape[1]
        options = {"max_new_tokens": most, "do_sample": False, "pad_token_id": self.processor.pad_token_id}
        for tokens in self.model.generate(**encoded, **options):
            yield {"text": self.processor.decode(tokens[length:], skip_special_tokens=True)}

    def _vectors(self, vectors: torch.Tensor) -> Iterator[Any]:
        for vector in vectors.tolist():
            if all(map(math.isfinite, vector)):
                yield {"embedding": [round(number, DIGITS) for number in vector]}
            else:
                yield Failure("the model's vector is not finite")
