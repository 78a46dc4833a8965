"""Trying a version from the console: the form, and the route that it sends to."""
