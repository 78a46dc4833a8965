"""A version on real pods of this machine, one of each engine: whether they answer alike, and how fast."""
