"""The seam to torch-model-archiver: its manifest, its runtimes and the names of TorchServe's own handlers."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # it leaves its version file open when imported
    from model_archiver.manifest_components.manifest import Manifest, RuntimeType
    from model_archiver.manifest_components.model import Model
    from model_archiver.model_packaging_utils import model_handlers

__all__ = ["Manifest", "Model", "RuntimeType", "model_handlers"]
