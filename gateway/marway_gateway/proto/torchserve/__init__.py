"""TorchServe's own inference service, as its clients know it."""
