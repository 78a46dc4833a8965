"""Makes pages of docs/ pages of the site: what they link to outside of docs/ is named there, not linked."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Leave of a link to a file of the repository its text, which is the file's name or says what it is."""
    above = re.escape("../" * (page.file.src_uri.count("/") + 1))
    return re.sub(rf"(?<!!)\[([^\]]+)\]\({above}[^)]*\)", r"\1", markdown)
