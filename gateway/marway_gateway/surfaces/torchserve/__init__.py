"""TorchServe's inference APIs, REST and gRPC."""
