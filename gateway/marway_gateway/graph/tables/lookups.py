"""What nodes of kind lookup do: rows of a table, by key, joined to what the node is given."""

from __future__ import annotations

import json
from typing import Any

from marway.errors import InvalidRequest, MarwayError, ModelError, clip
from marway.graphs import LookupNode
from marway.resolve.resolver import Resolver
from marway_gateway.graph.messages import Message, Unreadable
from marway_gateway.graph.tables.tables import Tables

__all__ = ["Lookups"]


class Lookups:
    """Joins rows of tables.

    Args:
        resolver: Knows which version of a table a node reads now.
        tables: Where rows are looked up.
    """

    def __init__(self, resolver: Resolver, tables: Tables) -> None:
        self._resolver = resolver
        self._tables = tables

    async def joined(self, node: LookupNode, key: Any, given: Message) -> tuple[str, Message]:
        """Return name and version of the table, and what the node was given with what was found as one more field.

        Args:
            node: The node.
            key: The key, or a list of keys, for which a list is found.
            given: What the node was given.

        Raises:
            InvalidReference, NotFound: There is no such table.
            InvalidRequest: A key is not in the table, or what was given is no JSON object.
            MarwayError: As the table raises.
        """
        resolved = self._resolver.lookup(node.table, node.selector)
        if resolved is None:
            resolved = await self._resolver.resolve(node.table, node.selector)
        record = resolved.record
        keys = key if isinstance(key, list) else [key]
        found = await self._tables.rows(resolved, keys, node.columns)
        if node.missing == "error":
            for each, row in zip(keys, found, strict=True):
                if row is None:
                    raise InvalidRequest(
                        f"there is no key {clip(json.dumps(each), 100)} in it",
                        model=record.name,
                        version=record.version,
                    )
        try:
            base = given.value
        except Unreadable as exc:
            raise _no_object(f"what it is given {exc}") from exc
        if not isinstance(base, dict):
            raise _no_object("what it is given is no JSON object")
        into = found if isinstance(key, list) else found[0]
        return f"{record.name} {record.version}", Message(value={**base, node.into: into})


def _no_object(why: str) -> MarwayError:
    return ModelError(f"{why}, to which a row could be joined", status=422)
