"""The script of a worker: what the fork server, or a plain Python, runs in a worker's process."""

from marway_runtime.engines.native.worker import main

main()
