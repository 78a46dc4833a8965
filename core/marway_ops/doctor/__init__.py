"""What `marway doctor` looks at on this machine, and how findings are shown."""
