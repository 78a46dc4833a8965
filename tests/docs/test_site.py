"""The site of docs/ is whole: every page is in its navigation, every link leads somewhere, all files are here."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
_FETCHING_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect"}


class _Fetched(HTMLParser):
    """What a browser fetches by itself for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in _FETCHING_LINKS:
            return
        address = given.get(_FETCHED.get(tag, ""))
        if address:
            self.addresses.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it; a page outside of the navigation or a dead link fails that."""
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(directory)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return directory


def test_every_page_is_there_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    """Each page of docs/ is a page of the site, and a browser needs no other host for any."""
    for source in sorted((ROOT / "docs").rglob("*.md")):
        page = site / source.relative_to(ROOT / "docs").with_suffix(".html")
        assert page.is_file(), source
        fetched = _Fetched()
        fetched.feed(page.read_text())
        assert fetched.addresses, page
        assert not [each for each in fetched.addresses if re.match(r"(https?:)?//", each)], page
    styles = "".join(each.read_text() for each in site.rglob("*.css"))
    assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles)


def test_every_page_is_in_the_navigation_once() -> None:
    """A page that two branches both put into the navigation would be there twice, which mkdocs says nothing of."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"(\S+\.md)$", settings.partition("\nnav:\n")[2], re.MULTILINE)
    assert sorted(named) == sorted(str(each.relative_to(ROOT / "docs")) for each in (ROOT / "docs").rglob("*.md"))
