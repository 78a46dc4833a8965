"""The console: pages of the admin port for people."""
