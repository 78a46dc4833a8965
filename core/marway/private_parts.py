"""What Marway uses of a library that the library does not promise, looked for before anything is served.

`pyproject.toml` bounds the versions of such a library on both sides. An installation that does not keep to that, such
as one made with ``--no-deps``, would begin to serve and then answer wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from typing import Final

from marway.errors import InvalidSettings

__all__ = ["HTTP_CYCLE", "HTTP_PARSER", "HTTP_PROTOCOL", "HTTP_SERVER", "check_private_parts"]

HTTP_PROTOCOL: Final = (
    "_get_upgrade", "_start_asgi_task", "_unset_keepalive_if_required",
    "app_state", "asgi_version", "connections", "cycle", "expect_100_continue", "flow", "pipeline", "server_state",
    "timeout_keep_alive_task",
)  # fmt: skip
"""Of uvicorn's `HttpToolsProtocol`, which gateway and sidecar derive their connections from."""
HTTP_CYCLE: Final = (
    "run_asgi",
    "body", "chunked_encoding", "default_headers", "disconnected", "expected_content_length", "keep_alive",
    "message_event", "more_body", "on_response", "response_complete", "response_started", "waiting_for_100_continue",
)  # fmt: skip
"""Of uvicorn's `RequestResponseCycle`, which holds one request."""
HTTP_PARSER: Final = ("set_dangerous_leniencies",)
"""Of httptools' `HttpRequestParser`."""

HTTP_SERVER: Final = ("capture_signals", "startup")
"""Of uvicorn's `Server`, which are overridden."""


def check_private_parts(library: str, owner: type, names: Iterable[str]) -> None:
    """Raise unless a class has every method, and its initialiser sets every attribute, that Marway relies on.

    Args:
        library: The distribution that the class belongs to.
        owner: The class.
        names: Of methods, or of attributes that its own initialiser sets.

    Raises:
        InvalidSettings: Some are missing; the message names the installed version and those that will do.
    """
    code = getattr(owner.__init__, "__code__", None)  # type: ignore[misc]  # of this very class
    of_instances = frozenset(() if code is None else code.co_names)
    missing = [name for name in names if not hasattr(owner, name) and name not in of_instances]
    if missing:
        wanted = sorted({each.partition(";")[0].strip() for each in _requirements() if each.startswith(library)})
        raise InvalidSettings(
            f"{library} {metadata.version(library)} is installed, whose {owner.__name__} has no {', '.join(missing)}, "
            "which Marway uses: pip install " + " ".join(f"'{each}'" for each in wanted or [library])
        )


def _requirements() -> list[str]:
    try:
        return metadata.requires("marway") or []
    except metadata.PackageNotFoundError:  # run from a directory
        return []
