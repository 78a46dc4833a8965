"""The `marway` command: a shell that gathers every room's verbs."""
