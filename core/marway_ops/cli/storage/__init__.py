"""Verbs of registries as wholes: `marway copy`, `export`, `import` and `df`."""

from __future__ import annotations

from marway_ops.cli.storage.copying import copy
from marway_ops.cli.storage.files import export, import_file
from marway_ops.cli.storage.usage import df

__all__ = ["copy", "df", "export", "import_file"]
