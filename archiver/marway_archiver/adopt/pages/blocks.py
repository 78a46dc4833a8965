"""Pieces that a page is made of, and how they are written as Markdown and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from marway.text import printable

__all__ = ["Block", "Code", "Heading", "Items", "Table", "Text", "as_html", "as_markdown"]

_STYLE: Final = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { border: 1px solid #d0d0d0; padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { background: #f3f3f3; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
@media (prefers-color-scheme: dark) {
  body { background: #161616; color: #e6e6e6; } th, pre { background: #242424; } th, td { border-color: #444; }
}
"""
_SPECIAL: Final = re.compile(r"([\\*_\[\]<>|#~`])")
_CODED: Final = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; what is between backticks is code, in all blocks but `Code`."""

    text: str


@dataclass(frozen=True, slots=True)
class Items:
    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Code:
    text: str
    language: str = ""


Block = Heading | Text | Items | Table | Code


def as_markdown(blocks: Sequence[Block]) -> str:
    """Return blocks as Markdown that GitHub shows; what somebody else wrote in them cannot become markup."""
    return "\n\n".join(_markdown(each) for each in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Text(text):
            return _plain(text)
        case Items(items):
            return "\n".join(f"- {_plain(each)}" for each in items)
        case Table(columns, rows):
            lines = [columns, ["---"] * len(columns), *([_plain(cell) for cell in row] for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Code(text, language):
            fence = "`" * max(3, 1 + max((len(each) for each in re.findall("`+", text)), default=0))
            return f"{fence}{language}\n{_lines(text)}\n{fence}"


def _plain(text: str) -> str:
    """Return a line of text whose special characters stand for themselves, but for code."""
    return "".join(
        # A bar ends a cell even in code.
        f"`{part.replace('|', chr(92) + '|')}`" if coded else _SPECIAL.sub(r"\\\1", part)
        for part, coded in _parts(" ".join(printable(text).split()))
    )


def as_html(blocks: Sequence[Block], *, title: str) -> str:
    """Return blocks as one HTML file that needs no other."""
    body = "\n".join(_html(each) for each in blocks)
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    styled = f"{head}<style>\n{_STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{styled}</head>\n<body>\n{body}\n</body></html>\n'


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_escaped(text)}</h{level}>"
        case Text(text):
            return f"<p>{_escaped(text)}</p>"
        case Items(items):
            return f"<ul>{''.join(f'<li>{_escaped(each)}</li>' for each in items)}</ul>"
        case Table(columns, rows):
            head = "".join(f"<th>{_escaped(each)}</th>" for each in columns)
            body = "".join(f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>" for row in rows)
            return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        case Code(text, _):
            return f"<pre><code>{html.escape(_lines(text))}</code></pre>"


def _escaped(text: str) -> str:
    return "".join(
        f"<code>{html.escape(part)}</code>" if coded else html.escape(part) for part, coded in _parts(printable(text))
    )


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Yield pieces of a text, and whether each is code."""
    at = 0
    for found in _CODED.finditer(text):
        yield text[at : found.start()], False
        yield found[1], True
        at = found.end()
    yield text[at:], False


def _lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))
