"""Prints what one extra needs, a requirement a line, for an image layer that changes only when pyproject.toml does."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
print(*project["dependencies"], *project["optional-dependencies"][sys.argv[2]], sep="\n")
