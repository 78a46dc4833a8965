"""Prints what one extra needs, a requirement a line, for an image layer that changes only when pyproject.toml does."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
needed = [*project["dependencies"], *project["optional-dependencies"][sys.argv[2]]]
if sys.argv[2] in ("gateway", "sidecar"):  # neither locks requirements nor installs them: 37 MiB less in their images
    needed = [each for each in needed if not each.startswith("uv==")]
print(*needed, sep="\n")
