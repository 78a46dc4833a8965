"""Makes pages of docs/ pages of the site: what they link to outside of docs/ is named there, not linked."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Leave of a link to a file of the repository its text, which is the file's name or says what it is."""
    above = re.escape("../" * (page.file.src_uri.count("/") + 1))
    return re.sub(rf"(?<!!)\[([^\]]+)\]\({above}[^)]*\)", r"\1", markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Name the search for screen readers, which the theme leaves without a name."""
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )
