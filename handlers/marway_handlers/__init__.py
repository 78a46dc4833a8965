"""TorchServe handlers to pack into archives, each a standalone file that packs by its path.

The names load lazily: a training script asks only for a handler's file, and may have no TorchServe installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marway_handlers.embedding import EmbeddingHandler
    from marway_handlers.image_classifier import ImageClassifier
    from marway_handlers.streaming_text import StreamingTextClassifier
    from marway_handlers.tensor import TensorHandler
    from marway_handlers.text_classifier import TextClassifier

__all__ = ["EmbeddingHandler", "ImageClassifier", "StreamingTextClassifier", "TensorHandler", "TextClassifier"]

_HOMES = {
    "EmbeddingHandler": "embedding",
    "ImageClassifier": "image_classifier",
    "StreamingTextClassifier": "streaming_text",
    "TensorHandler": "tensor",
    "TextClassifier": "text_classifier",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
