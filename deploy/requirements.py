"""Prints what one extra needs, a requirement a line, for an image layer that changes only when pyproject.toml does."""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_OWN = re.compile(r"marway\[([a-z,-]+)\]")


def of_extra(extras: Mapping[str, Sequence[str]], extra: str) -> Iterator[str]:
    """Yield what an extra needs; an extra that it names stands for what that one needs."""
    for requirement in extras[extra]:
        if own := _OWN.fullmatch(requirement):
            for named in own[1].split(","):
                yield from of_extra(extras, named)
        else:
            yield requirement


if __name__ == "__main__":
    project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
    needed = [*project["dependencies"], *of_extra(project["optional-dependencies"], sys.argv[2])]
    if sys.argv[2] in ("gateway", "sidecar"):  # neither locks requirements nor installs them: 37 MiB less
        needed = [each for each in needed if not each.startswith("uv==")]
    print(*needed, sep="\n")
