"""A raw body as a handler sees it: wherever one runs, when it is packed, tested or served."""

from __future__ import annotations

from collections.abc import Iterator, KeysView
from typing import Any, Final

from marway.wire.envelope import RAW_BODY

__all__ = ["REST_NAME", "RawBody"]

REST_NAME: Final = "body"
"""What TorchServe's REST front end calls a raw body."""


class RawBody(dict[str, Any]):
    """A raw body: the value under `data`, and under `body` as well.

    TorchServe calls a raw body `body` over REST and leaves the name to the caller over gRPC, where `data` is usual; its
    own handlers ask for both. Handlers written for either find it here. There is one value, so there is one key to
    whoever iterates: `data`, the name that Marway promises. A plain copy (`dict(row)`, `{**row}`), which cannot look
    one name up under the other, has both.
    """

    def __iter__(self) -> Iterator[str]:  # without it, copies take what is stored and ask for no keys
        return super().__iter__()

    def keys(self) -> KeysView[str]:
        """Return both names: copies take each with its value."""
        return self._both().keys()

    def copy(self) -> RawBody:
        """Return a row that answers to both names, too."""
        return RawBody(self.items())

    def __or__(self, other: Any) -> Any:
        return self._both() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._both()

    def _both(self) -> dict[str, Any]:
        values = dict(self.items())
        if RAW_BODY in values:
            values[REST_NAME] = values[RAW_BODY]
        return values

    def __missing__(self, key: str) -> Any:
        if key == REST_NAME and RAW_BODY in self:
            return self[RAW_BODY]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(_own(key))

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(_own(key), default)

    def pop(self, key: str, *default: Any) -> Any:
        return super().pop(_own(key), *default)


def _own(key: object) -> Any:
    return RAW_BODY if key == REST_NAME else key
