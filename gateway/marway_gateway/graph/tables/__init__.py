"""Published tables of rows by key, which nodes of kind lookup read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from marway.resolve.resolved import Resolved

__all__ = ["TableRows"]


class TableRows(Protocol):
    """Where rows are looked up: `marway_gateway.graph.tables.tables.Tables`."""

    async def rows(
        self, resolved: Resolved, keys: Sequence[Any], columns: Sequence[str] | None
    ) -> list[Mapping[str, Any] | None]:
        """Return the row of each key, as JSON has it; None for a key that is not in the table.

        Args:
            resolved: Which version of which table.
            keys: JSON values: whole numbers or texts, as the table's key is.
            columns: Which columns; None: all but the key.

        Raises:
            InvalidRequest: A key is of another type than the table's, or there are too many.
            InvalidGraph: The version is no table, or has no such column.
            ArchiveCorrupt: Its archive is not there, or damaged.
            Unavailable: It is not here yet, and cannot be fetched.
        """
