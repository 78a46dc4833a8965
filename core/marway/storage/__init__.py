"""Registries as wholes: copies of versions, exports into a file and back, backups, and how large one is."""
