"""What is kept of predictions, and what becomes of it: feedback, quality, drift, events, where an answer came from.

Its modules that read and write Parquet need the extra `observations`; the bare install imports none of them.
"""
