"""Predictions that are answered later: accepted work in the store, leases on it, answers kept for a time."""
