"""The pod contract over HTTP and frames."""
