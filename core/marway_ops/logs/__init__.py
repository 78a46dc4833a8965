"""The logs of all components, merged."""
