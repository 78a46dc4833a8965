"""One machine's whole system as child processes: what `marway up` runs."""
