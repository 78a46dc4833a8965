"""Java's properties, as TorchServe's configuration and snapshots have them."""

from __future__ import annotations

import pytest

from marway.errors import InvalidInput
from marway_archiver.adopt.sources.properties import parse_properties


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a=1\nb: 2\nc 3\nd", {"a": "1", "b": "2", "c": "3", "d": ""}),
        ("# no\n! nor this\n\n  e = f \n", {"e": "f "}),
        ("load_models=one.mar,\\\n    two.mar\r\nx=y", {"load_models": "one.mar,two.mar", "x": "y"}),
        ("inference_address=http\\://0.0.0.0\\:8080", {"inference_address": "http://0.0.0.0:8080"}),
        ('m={\\n  "a"\\: 1\\n}', {"m": '{\n  "a": 1\n}'}),
        ("k\\=ey=v\\u0061lue\\t.", {"k=ey": "value\t."}),
        ("twice=1\ntwice=2", {"twice": "2"}),
        ("path=C\\\\dir\nends=with\\\\", {"path": "C\\dir", "ends": "with\\"}),
        ("open=\\", {"open": ""}),
        ("caf\u00e9=1", {"caf\u00e9": "1"}),
    ],
)
def test_properties_are_read_as_java_reads_them(text: str, wanted: dict[str, str]) -> None:
    """Separators, comments, lines that go on, and escapes are those of `java.util.Properties.load`."""
    assert parse_properties(text.encode("latin-1"), "config.properties") == wanted


def test_half_an_escape_is_refused_with_its_line() -> None:
    """A `\\u` without four digits, which Java refuses too, is told of with file and line."""
    with pytest.raises(InvalidInput, match=r"config\.properties:2: "):
        parse_properties(b"a=1\nb=\\u00", "config.properties")
