"""The console's pages of models: all of them, and one."""
