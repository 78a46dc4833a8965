"""One reader for each kind of source: nothing of it is run, and nothing in it is changed."""
