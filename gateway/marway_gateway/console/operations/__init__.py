"""The pages for who runs it: pods, rollouts, shadow copies, events, settings."""
