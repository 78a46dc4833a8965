"""Stands in for `python` when TorchServe starts a worker: `python -m marway_runtime.worker --home DIR -- SCRIPT ARGS…`.

Runs TorchServe's own worker script in this process, with Marway's service in place of `ts.service.Service`.
"""

from __future__ import annotations

import runpy
import sys

from marway_runtime.worker.lifeline import die_with_parent
from marway_runtime.worker.service import install


def main() -> None:
    """Run the worker script that follows `--` on the command line."""
    arguments = sys.argv[sys.argv.index("--") + 1 :]
    die_with_parent()
    install()
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
