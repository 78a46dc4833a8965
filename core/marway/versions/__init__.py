"""What is inside a published version, and how two of them differ: for the `marway` command and the gateway alike."""
