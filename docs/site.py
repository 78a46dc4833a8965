"""Makes pages of docs/ pages of the site: what they link to outside of docs/ is named there, not linked."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Leave of a link to a file of the repository its text, which is the file's name or says what it is."""
    return _OUTSIDE.sub(r"\1", markdown)
