"""Published tables of rows by key, which nodes of kind lookup read."""
