"""A stand-in for the kubectl command: answers from files, and keeps a record of how it was called."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

__all__ = ["StandInKubectl"]

# A shell script, because it is started ten times by each look.
_PROGRAM = r"""#!/bin/sh
home={home}
line=$(printf '%s\t' "$@")
printf '%s\n' "$line" >> "$home/calls"  # in one piece: others write too
if [ -e "$home/error" ]; then cat "$home/error" >&2; exit 1; fi
kind=$2
if [ -e "$home/$kind.forbidden" ]; then
    echo "Error from server (Forbidden): $kind is forbidden: User \"jane\" cannot list resource \"$kind\"" >&2
    exit 1
fi
if [ ! -e "$home/$kind" ]; then
    echo "error: the server doesn't have a resource type \"${{kind%%.*}}\"" >&2
    exit 1
fi
exec cat "$home/$kind"
"""


class StandInKubectl:
    """An executable `kubectl` in a directory to put on PATH.

    Args:
        directory: A new one.
        documents: What `kubectl get KIND --output json` prints, by kind.
        secrets: Names of secrets.
    """

    def __init__(self, directory: Path, documents: dict[str, Any], *, secrets: tuple[str, ...]) -> None:
        self.bin = directory / "bin"
        self._home = directory
        self.bin.mkdir(parents=True)
        program = self.bin / "kubectl"
        program.write_text(_PROGRAM.format(home=shlex.quote(str(directory))))
        program.chmod(0o755)
        for kind, document in documents.items():
            (directory / kind).write_text(json.dumps(document))
        (directory / "secrets").write_text("".join(f"{name}   Opaque   1      3d2h\n" for name in secrets))

    def fail(self, says: str) -> None:
        """Have every call end with status 1 and this on standard error."""
        (self._home / "error").write_text(says)

    def forbid(self, kind: str) -> None:
        """Have the user not be allowed to list a kind."""
        (self._home / f"{kind}.forbidden").touch()

    def print(self, kind: str, text: str) -> None:
        """Have it print something else for a kind."""
        (self._home / kind).write_text(text)

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of every call."""
        return [line.split("\t")[:-1] for line in (self._home / "calls").read_text().splitlines()]
