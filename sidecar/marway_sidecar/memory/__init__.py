"""The memory that versions may use, and what they used the last time."""
