"""Rollouts as gateways run them: what each counts, how they put it together, and what they do about it."""
