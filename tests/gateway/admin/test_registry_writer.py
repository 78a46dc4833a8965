"""The seam between the event loop and changes of the registry."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from marway.errors import RegistryUnavailable
from marway.registry import Change
from marway_gateway.admin.registry_writer import RegistryWriter


async def test_changes_before_a_failure_are_reported() -> None:
    """Of several changes those that were made are reported, and requests see them, where a later one fails."""
    refreshed: list[str] = []

    async def refresh(name: str) -> None:
        refreshed.append(name)

    def changes(name: str) -> Iterator[Change]:
        yield cast("Any", SimpleNamespace(entry="first"))
        raise RegistryUnavailable("the store is away")

    reported: list[Any] = []
    writer = RegistryWriter(
        cast("Any", SimpleNamespace(find=lambda name: name)),
        cast("Any", SimpleNamespace(refresh=refresh)),
        changed=lambda name, entry: reported.append((name, entry)),
    )
    try:
        with pytest.raises(RegistryUnavailable):
            await writer.changes(changes, "intent")
    finally:
        await writer.aclose()
    assert reported == [("intent", "first")]
    assert refreshed == ["intent"]
