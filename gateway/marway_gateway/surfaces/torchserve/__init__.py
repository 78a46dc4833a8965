"""TorchServe's APIs as one surface."""
