"""Admin routes of rollouts and shadow copies."""
