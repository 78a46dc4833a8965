"""The model servers that a runtime can start."""
