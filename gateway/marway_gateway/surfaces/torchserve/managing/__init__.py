"""TorchServe's management API over the registry, served on the admin port where `torchserve_management` is on."""
