"""The gRPC server, and what all its services share."""
