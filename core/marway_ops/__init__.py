"""What people run: the `marway` command, `marway up`, and the checks of a machine and of a cluster."""
