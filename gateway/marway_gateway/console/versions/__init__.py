"""The pages of one version, and of how it differs from another."""
