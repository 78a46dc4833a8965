"""A plain worker: `python -I -m marway_runtime.worker --home DIR --reason WHY [--overlay DIR] -- SCRIPT ARGS…`.

Runs TorchServe's own worker script in this process, with Marway's service in place of `ts.service.Service`. `--home`
and `--reason` are for those who look at the command line: the runtime is one of them.

`--overlay` is the version's environment, which goes in front of what this Python has; where it is not given, it is
looked for (`worker.overlay`).

Python starts isolated (`-I`), and the archive is put on the search path only when TorchServe, torch and our own modules
are imported: nothing in an archive is taken for one of them, and no `sitecustomize.py` of one runs.
"""

from __future__ import annotations

import os
import runpy
import sys

from marway_runtime.process_tree import adopt_orphans, die_with_parent
from marway_runtime.worker.overlay import OVERLAYS_ENV, find_overlay, read_manifest


def main() -> None:
    """Run the worker script that follows `--` on the command line."""
    split = sys.argv.index("--")
    options, arguments = sys.argv[1:split], sys.argv[split + 1 :]
    adopt_orphans()
    die_with_parent()

    manifest = read_manifest(os.getcwd())  # noqa: PTH109 - as below
    if "--overlay" in options:
        overlay: str | None = options[options.index("--overlay") + 1]
    else:
        overlay = find_overlay(manifest, os.environ.get(OVERLAYS_ENV))
    if overlay is not None:
        sys.path.insert(0, overlay)
        # For the processes of handlers.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), overlay]))

    from marway_runtime.worker.bootstrap import install  # takes a second: the lifeline comes first

    install(manifest or None)
    searched = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = [os.getcwd(), *searched]  # noqa: PTH109 - a text, as Python itself puts there
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
