"""A plain worker: `python -I -m marway_runtime.worker --home DIR --reason WHY -- SCRIPT ARGS…`.

Runs TorchServe's own worker script in this process, with Marway's service in place of `ts.service.Service`. `--home`
and `--reason` are for those who look at the command line: the runtime is one of them.

Python starts isolated (`-I`), and the archive is put on the search path only when TorchServe, torch and our own modules
are imported: nothing in an archive is taken for one of them, and no `sitecustomize.py` of one runs.
"""

from __future__ import annotations

import os
import runpy
import sys

from marway_runtime.process_tree import adopt_orphans, die_with_parent


def main() -> None:
    """Run the worker script that follows `--` on the command line."""
    arguments = sys.argv[sys.argv.index("--") + 1 :]
    adopt_orphans()
    die_with_parent()

    from marway_runtime.worker.bootstrap import install  # takes a second: the lifeline comes first

    install()
    searched = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = [os.getcwd(), *searched]  # noqa: PTH109 - a text, as Python itself puts there
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
