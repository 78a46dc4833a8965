"""How requests of a label are divided between versions, and what the answers of a candidate say of it."""
