"""The archive format: names, entries, the zip that is written and the zips that are read."""
