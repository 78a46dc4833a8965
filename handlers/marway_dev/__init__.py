"""What the author of a handler runs: `marway new` writes one, `marway dev` serves it from its file as it is edited."""
