"""A plain worker: `python -m marway_runtime.worker --home DIR --reason WHY -- SCRIPT ARGS…`.

Runs TorchServe's own worker script in this process, with Marway's service in place of `ts.service.Service`. `--home`
and `--reason` are for those who look at the command line: the runtime is one of them.
"""

from __future__ import annotations

import runpy
import sys

from marway_runtime.process_tree import adopt_orphans
from marway_runtime.worker.lifeline import die_with_parent


def main() -> None:
    """Run the worker script that follows `--` on the command line."""
    arguments = sys.argv[sys.argv.index("--") + 1 :]
    adopt_orphans()
    die_with_parent()

    from marway_runtime.worker.bootstrap import install  # takes a second: the lifeline comes first

    install()
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
