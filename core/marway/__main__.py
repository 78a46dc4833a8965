"""`python -m marway`: the same as the command `marway`."""

from marway.cli.main import main

main()
