"""Prints what one extra of the project needs, one requirement a line: the layer that changes only when pyproject does."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
print(*project["dependencies"], *project["optional-dependencies"][sys.argv[2]], sep="\n")
