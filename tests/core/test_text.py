"""What was meant by a name that there is not."""

from __future__ import annotations

import pytest

from marway.text import close_name, did_you_mean


@pytest.mark.parametrize(
    ("name", "known", "close"),
    [
        ("prod", ["PROD", "STG"], "PROD"),
        ("production", ["PROD"], "PROD"),
        ("prd", ["PROD"], "PROD"),
        ("itent", ["digits", "intent"], "intent"),
        ("pod-O", ["pod-1", "pod-0"], "pod-0"),
        ("nobody", ["digits", "intent"], None),
        ("latest", ["PROD"], None),
        ("x", [], None),
    ],
)
def test_the_closest_name_whatever_its_case(name: str, known: list[str], close: str | None) -> None:
    """A slip finds the name, whatever its case and look-alike letters; what resembles none finds none."""
    assert close_name(name, known) == close


@pytest.mark.parametrize(
    ("version", "known", "close"),
    [
        ("1", ["1.0", "1.1"], "1.0"),
        ("v1.0", ["1.0", "1.1"], "1.0"),
        ("1.O", ["1.0", "2.0"], "1.0"),
        ("1.0rc", ["1.0", "1.0-rc"], "1.0-rc"),
        ("V1", ["v1"], "v1"),
        ("2.0", ["1.0"], None),
        ("10", ["1.1", "1"], None),
    ],
)
def test_a_version_with_other_numbers_is_not_meant(version: str, known: list[str], close: str | None) -> None:
    """A version is close to one with the same numbers only: who asks for 2.0 does not want 1.0."""
    assert close_name(version, known, same_numbers=True) == close


def test_the_end_of_a_message() -> None:
    """It names what was meant and what that is, or is empty."""
    assert did_you_mean("prod", ["PROD"], "label ") == "; did you mean label 'PROD'?"
    assert did_you_mean("nobody", ["PROD"]) == ""
