"""`python -m marway`: the same as the command `marway`."""

from marway_ops.cli.main import main

main()
