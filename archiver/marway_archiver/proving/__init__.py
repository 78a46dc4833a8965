"""Golden examples: run in a process of their own, alone and in batches."""
