"""TorchServe handlers to pack into archives, each a standalone file that packs by its path.

The names load lazily: a training script asks only for a handler's file, and may have no TorchServe installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marway_handlers.embedding import EmbeddingHandler
    from marway_handlers.huggingface import HuggingFaceHandler
    from marway_handlers.image_classifier import ImageClassifier
    from marway_handlers.mlflow_model import MlflowHandler
    from marway_handlers.onnx_model import OnnxHandler
    from marway_handlers.sklearn_model import SklearnHandler
    from marway_handlers.streaming_text import StreamingTextClassifier
    from marway_handlers.tensor import TensorHandler
    from marway_handlers.text_classifier import TextClassifier
    from marway_handlers.torchscript import TorchScriptHandler

__all__ = [
    "EmbeddingHandler",
    "HuggingFaceHandler",
    "ImageClassifier",
    "MlflowHandler",
    "OnnxHandler",
    "SklearnHandler",
    "StreamingTextClassifier",
    "TensorHandler",
    "TextClassifier",
    "TorchScriptHandler",
]

_HOMES = {
    "EmbeddingHandler": "embedding",
    "HuggingFaceHandler": "huggingface",
    "ImageClassifier": "image_classifier",
    "MlflowHandler": "mlflow_model",
    "OnnxHandler": "onnx_model",
    "SklearnHandler": "sklearn_model",
    "StreamingTextClassifier": "streaming_text",
    "TensorHandler": "tensor",
    "TextClassifier": "text_classifier",
    "TorchScriptHandler": "torchscript",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
